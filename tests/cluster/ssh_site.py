"""A real sshd on loopback that runs as this user, with throw-away keys."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.debian import program
from tests.ports import free_port

UP_S = 90
MARK = "W2V_SSH_SITE"
"""In the environment of all that is started over the site."""
_CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {root}/host_key
AuthorizedKeysFile {root}/client_key.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
AcceptEnv {mark}
"""


@dataclass(frozen=True)
class SshSite:
    """How its one user gets in."""

    connect: dict[str, Any]
    """For `cluster.options.connect_options`."""
    mark: str


@contextlib.contextmanager
def ssh_site() -> Iterator[SshSite]:
    """An sshd that admits this user; skips the test if there is none."""
    daemon, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd locks up what is not root
    with tempfile.TemporaryDirectory(prefix="w2v-ssh.") as folder:
        root, port = Path(folder), free_port()
        for name in ("host_key", "client_key"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)], check=True)
        (root / "sshd_config").write_text(_CONFIG.format(port=port, root=root, mark=MARK))
        host_key = (root / "host_key.pub").read_text()
        (root / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
        with (root / "log").open("wb") as log:
            process = subprocess.Popen([daemon, "-D", "-e", "-f", str(root / "sshd_config")], stderr=log)
        try:
            _wait_for_port(port, root / "log")
            connect = {
                "port": port, "username": getpass.getuser(), "client_keys": [str(root / "client_key")],
                "known_hosts": str(root / "known_hosts"), "config": [],
                "env": {MARK: folder},
            }  # fmt: skip
            yield SshSite(connect, folder)
        finally:
            process.terminate()
            process.wait(10)


def _wait_for_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, f"sshd did not come up:\n{log.read_text(errors='replace')}"
        time.sleep(0.05)
