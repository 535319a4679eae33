"""A small certificate authority and the certificates of one cluster, for a scheduler and workers that are started by hand.

Dask requires a certificate of the cluster's authority from both ends of a connection and does not compare names, so the authority
is the boundary: anybody with one of its certificates can run code on the workers. A client's certificate only allows connecting;
a scheduler or worker cannot be run with it.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shlex
import stat
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline.errors import InputError, PermissionDeniedError, UsageError, explain_os_error, printable
from pipeline.safety.files import read_inside

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from distributed.security import Security

AUTHORITY = "ca"
SERVERS = ("scheduler", "worker")
_PEM_BYTES = 1 << 20
EARLIER = datetime.timedelta(hours=1)
"""Certificates are valid from this long ago on, since hosts' clocks differ."""
_ALWAYS = (datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


def make_certificates(
    folder: Path, scheduler: str, workers: Sequence[str], clients: Sequence[str] = ("client",), days: int = 365
) -> list[Path]:
    """The files of a new authority in `folder`: NAME.pem and NAME.key, mode 0600, for ca, scheduler, worker and each client.

    `scheduler` and `workers` are names or addresses of hosts. Raises UsageError, with nothing written, if one of the files exists
    or a name is invalid.
    """
    hosts = {"scheduler": [scheduler], "worker": list(workers)}
    for host in (*hosts["scheduler"], *hosts["worker"]):
        _refuse_no_host(host)
    _refuse_no_names(clients)
    until = _now() + datetime.timedelta(days=days)
    key, authority = _authority(until)
    files = {AUTHORITY: (authority, key)}
    for name in (*SERVERS, *clients):
        files[name] = _signed(name, hosts.get(name, []), key, authority, until)
    return _write(folder, files)


def add_clients(folder: Path, clients: Sequence[str]) -> list[Path]:
    """The files of further clients of the authority in `folder`, valid as long as it is. Raises InputError if there is none."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    _refuse_no_names(clients)
    try:
        _refuse_open_folder(folder)
        authority = x509.load_pem_x509_certificate(read_inside(folder, f"{AUTHORITY}.pem", _PEM_BYTES))
        key = serialization.load_pem_private_key(read_inside(folder, f"{AUTHORITY}.key", _PEM_BYTES), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != authority.public_key():
            raise ValueError(f"{AUTHORITY}.key is not the key of {AUTHORITY}.pem")
        if (until := authority.not_valid_after_utc) <= _now():
            raise ValueError(f"it was valid until {until:%Y-%m-%d}")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{folder}: no authority to sign with ({error}); create one: w2v cluster certs {folder}") from None
    return _write(folder, {name: _signed(name, [], key, authority, until) for name in clients})


def scheduler_of(folder: Path) -> str | None:
    """The host that the scheduler's certificate in `folder` names; None if that cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(read_inside(folder, f"{SERVERS[0]}.pem", _PEM_BYTES))
        (name,) = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    return str(name.value)


def instructions(folder: Path, scheduler: str, port: int, client: str = "client") -> str:
    """The commands that start a cluster with these certificates, and the configuration that uses it."""
    address = f"tls://{f'[{scheduler}]' if ':' in scheduler else scheduler}:{port}"

    def tls(role: str) -> str:
        files = [(option, f"{folder / name}") for option, name in (("--tls-ca-file", f"{AUTHORITY}.pem"),
                 ("--tls-cert", f"{role}.pem"), ("--tls-key", f"{role}.key"))]  # fmt: skip
        return " ".join(f"{option} {shlex.quote(path)}" for option, path in files)

    files = {"ca_file": AUTHORITY + ".pem", "cert": f"{client}.pem", "key": f"{client}.key"}
    section = {"kind": "address", "address": address, "tls": {key: str(folder / name) for key, name in files.items()}}
    configuration = yaml.safe_dump({"cluster": section}, sort_keys=False, allow_unicode=True, width=1000)
    return f"""\
On {scheduler}, with ca.pem, scheduler.pem and scheduler.key:

    dask scheduler --protocol tls --host {scheduler} --port {port} --dashboard-address 127.0.0.1:8787 {tls("scheduler")}

On each host with workers, with ca.pem, worker.pem and worker.key; as many workers and threads as it has cores for:

    dask worker {address} --nworkers 2 --nthreads 2 --dashboard-address 127.0.0.1:0 {tls("worker")}

Where w2v runs, with ca.pem, {client}.pem and {client}.key, in the configuration:

{textwrap.indent(configuration, "    ")}
Keep ca.key where nobody else can read it, or delete it: anybody who has it can make more certificates.
Dask's pages are on loopback, without a password: reach them by ssh -L 8787:127.0.0.1:8787 {scheduler}."""


def _refuse_open_folder(folder: Path) -> None:
    """Raises PermissionDeniedError for a folder in which others could replace the authority with their own."""
    found = os.stat(folder)
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
        raise PermissionDeniedError(
            f"{folder}: other users can put certificates here (owner {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}); "
            "choose a folder that only you can write to"
        )


def _refuse_no_host(host: str) -> None:
    # Python accepts any text as the zone of an address, and the host is printed as part of a command.
    if "%" in host or (_address(host) is None and not _HOST.fullmatch(host)):
        raise UsageError(f"{printable(host, 100)}: expected the name or the address of a host, without port")


def _refuse_no_names(clients: Sequence[str]) -> None:
    for name in clients:
        if not _NAME.fullmatch(name) or name in (AUTHORITY, *SERVERS):
            raise UsageError(
                f"--client {printable(name, 100)}: expected letters, digits, dots and dashes, and none of "
                f"{', '.join((AUTHORITY, *SERVERS))}"
            )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def throw_away_security() -> Security:
    """Dask's settings with one certificate for all members of a cluster that ends with its run; key and certificate exist only in
    memory.

    It is valid at any time: who does not have its key does not get in, and the run ends before it could grow old. Dask's
    own (`Security.temporary`) is valid from now on, so that a clock set back, or a host whose clock is behind, admits nobody.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from distributed.security import Security

    key, named = ec.generate_private_key(ec.SECP256R1()), _subject("throw-away")
    made = _builder(named, named, key, _ALWAYS[1], _ALWAYS[0]).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("dask-internal")]), critical=False
    )
    certificate = made.sign(key, hashes.SHA256())
    no_password = serialization.NoEncryption()
    key_pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password).decode("ascii")
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
    texts = {"cert": pem, "key": key_pem}
    roles = {f"tls_{role}_{name}": texts[name] for role in ("scheduler", "worker", "client") for name in texts}
    return Security(tls_ca_file=pem, require_encryption=True, **roles)


def _now() -> datetime.datetime:
    return datetime.datetime.now(tz=datetime.UTC)


def _authority(until: datetime.datetime) -> tuple[EllipticCurvePrivateKey, x509.Certificate]:
    """A new key and its self-signed certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    named = _subject("authority")
    made = (
        _builder(named, named, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, made


def _signed(
    name: str, hosts: Sequence[str], authority_key: EllipticCurvePrivateKey, authority: x509.Certificate, until: datetime.datetime
) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    """A certificate and its key: for a server if `name` is one, otherwise for a client."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    # Dask's servers also act as clients.
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if name in SERVERS else [])]
    addresses = {host: _address(host) for host in hosts}
    names = [x509.DNSName(host) if found is None else x509.IPAddress(found) for host, found in addresses.items()]
    made = (
        _builder(_subject(name), authority.subject, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names or [x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return made, key


def _subject(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "w2v cluster"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    until: datetime.datetime,
    since: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since or _now() - EARLIER)
        .not_valid_after(until)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not sign_certificates, key_cert_sign=sign_certificates, crl_sign=sign_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _write(folder: Path, files: Mapping[str, tuple[x509.Certificate, EllipticCurvePrivateKey]]) -> list[Path]:
    """Writes all the files, or none of them and raises; never overwrites a file."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    contents = {}
    for name, (certificate, key) in files.items():
        contents[folder / f"{name}.pem"] = certificate.public_bytes(Encoding.PEM)
        contents[folder / f"{name}.key"] = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    written: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open_folder(folder)
        for path, content in contents.items():
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            written.append(path)
            with open(file, "wb") as out:
                out.write(content)
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UsageError(f"{error.filename}: exists already and is not overwritten; choose another folder") from None
        raise explain_os_error(error, folder) from error
    return written
