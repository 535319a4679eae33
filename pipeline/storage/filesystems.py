"""pyarrow's file systems, configured by the section `storage:`; secrets come from where the vendors' own tools find them.

S3      the environment (AWS_ACCESS_KEY_ID …), profiles in ~/.aws, the machine's role
GCS     GOOGLE_APPLICATION_CREDENTIALS, gcloud's credentials, the machine's role
Azure   AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, otherwise Azure's default chain
"""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, without_credentials
from pipeline.options.storage import ABFSS_OPTIONS, GS_OPTIONS, S3_OPTIONS, Storage
from pipeline.safety.seals import canonical_json
from pipeline.storage.addresses import Address

CONNECT_S, REQUEST_S = 5.0, 15.0
"""How long one attempt waits for a connection, and for a response without receiving a byte."""
_ENVIRONMENT = threading.Lock()


def file_system(address: Address, storage: Storage) -> Any:
    """The pyarrow.fs.FileSystem of an address, cached with its connections for the life of the process."""
    return _connected(address.scheme, address.account, canonical_json(storage.model_dump()).decode(), _endpoint_of_environment())


@cache
def _connected(scheme: str, account: str, settings: str, endpoint_of_environment: str | None) -> Any:
    storage = Storage(**json.loads(settings))
    if scheme == "s3":
        return _open_s3(storage, endpoint_of_environment)
    return _open_gs(storage) if scheme == "gs" else _open_abfss(account, storage)


def _open_s3(storage: Storage, endpoint_of_environment: str | None) -> Any:
    from pyarrow import fs

    options = {key: value for key, value in storage.options.items() if key in S3_OPTIONS}
    # The SDK reads the variable too, but then prefixes the host with the bucket's name, which only Amazon's servers support.
    endpoint = storage.endpoint or endpoint_of_environment
    if endpoint:
        options["scheme"], _, options["endpoint_override"] = endpoint.rstrip("/").partition("://")
    if storage.region or endpoint:
        # Servers other than Amazon's have no region to look up.
        options["region"] = storage.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if storage.ca_file:
        if not os.path.isfile(storage.ca_file):  # a FIFO would be waited for, a device read without end
            raise ConfigError(f"storage.ca_file: {storage.ca_file} does not exist or is not a file; give the path of a PEM file")
        options["tls_ca_file_path"] = storage.ca_file
    if storage.profile and "AWS_ACCESS_KEY_ID" in os.environ:
        raise ConfigError(
            f"storage.profile: {storage.profile} would not be used, because AWS_ACCESS_KEY_ID is set in the environment; unset "
            "it, or remove the key"
        )
    with _ENVIRONMENT:
        before = os.environ.get("AWS_PROFILE")
        try:
            if storage.profile:
                os.environ["AWS_PROFILE"] = storage.profile
            # One attempt each: `failures.patiently` retries, with its own time limit. With delayed opening a small object takes
            # one request instead of three.
            return fs.S3FileSystem(**{
                "anonymous": storage.anonymous, "connect_timeout": CONNECT_S, "request_timeout": REQUEST_S,
                "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=1), "allow_delayed_open": True,
            } | options)  # fmt: skip
        finally:
            if storage.profile:
                os.environ.pop("AWS_PROFILE") if before is None else os.environ.update(AWS_PROFILE=before)


def _open_gs(storage: Storage) -> Any:
    from pyarrow import fs

    options = {key: value for key, value in storage.options.items() if key in GS_OPTIONS}
    if storage.endpoint:
        options["scheme"], _, options["endpoint_override"] = storage.endpoint.partition("://")
    limit = timedelta(seconds=max(1.0, min(REQUEST_S, storage.patience_s)))
    return fs.GcsFileSystem(anonymous=storage.anonymous, retry_time_limit=limit, **options)


def _open_abfss(account: str, storage: Storage) -> Any:
    from pyarrow import fs

    if storage.anonymous:
        raise ConfigError("storage.anonymous: Azure's storage cannot be used without credentials; remove the key")
    options = {key: value for key, value in storage.options.items() if key in ABFSS_OPTIONS}
    if storage.endpoint:
        scheme, _, authority = storage.endpoint.partition("://")
        options |= {f"{kind}_storage_scheme": scheme for kind in ("blob", "dfs")}
        options |= {f"{kind}_storage_authority": authority for kind in ("blob", "dfs")}
    if key := os.environ.get("AZURE_STORAGE_KEY"):
        options["account_key"] = key
    elif token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        options["sas_token"] = token
    return fs.AzureFileSystem(account, **options)


def endpoint_of(address: Address, storage: Storage) -> str:
    """The server's name, for messages."""
    if storage.endpoint:
        return storage.endpoint
    if address.scheme == "abfss":
        return address.host
    if address.scheme == "gs":
        return "Google's storage"
    return without_credentials(_endpoint_of_environment() or "Amazon's S3")


def _endpoint_of_environment() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def credentials_of(address: Address, storage: Storage) -> str:
    """Where the credentials come from, for messages; never the credentials themselves."""
    if storage.anonymous:
        return "none (storage.anonymous is true)"
    if address.scheme == "gs":
        return (
            "GOOGLE_APPLICATION_CREDENTIALS"
            if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ
            else "gcloud's files or the machine"
        )
    if address.scheme == "abfss":
        found = [name for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN") if name in os.environ]
        return found[0] if found else "Azure's default chain"
    if storage.profile:
        return f"profile {storage.profile} (storage.profile)"
    named = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if found := [name for name in named if name in os.environ]:
        return f"{found[0]} in the environment"
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or os.path.expanduser("~/.aws/credentials"))
    return str(file) if file.exists() else "nowhere: no AWS_ACCESS_KEY_ID, no AWS_PROFILE, no ~/.aws/credentials"
