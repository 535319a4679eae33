"""The section `storage:`: how buckets are reached. There are no keys for secrets."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from pipeline.options.section import Section, spelled
from pipeline.safety.values import has_host

S3_OPTIONS = (
    "role_arn", "session_name", "external_id", "load_frequency", "request_timeout", "connect_timeout", "force_virtual_addressing",
)  # fmt: skip
GS_OPTIONS = ("target_service_account", "project_id")
ABFSS_OPTIONS = ("client_id", "tenant_id")
OPTIONS = (*S3_OPTIONS, *GS_OPTIONS, *ABFSS_OPTIONS)
"""Options of pyarrow's file systems that are passed on; the others have keys of their own or are secrets."""
_SECRET = ("access_key", "secret_key", "session_token", "access_token", "account_key", "sas_token", "client_secret", "password")


class Storage(Section):
    """How buckets are reached: `s3://bucket/key`, `gs://bucket/key`, `abfss://container@account.dfs.core.windows.net/key`.
    Secrets come from the environment or a profile, as for the vendors' own tools, and never belong in a configuration."""

    endpoint: str | None = None
    """http(s)://host:port of an S3-compatible server (MinIO, Ceph, R2 …), or of another vendor's emulator; null = the vendor's
    own, or `AWS_ENDPOINT_URL`."""
    region: Annotated[str, spelled(r"[A-Za-z0-9-]+", "a region's name, such as eu-west-1")] | None = None
    """S3 only; null = from the environment or the profile."""
    profile: str | None = Field(None, min_length=1)
    """S3 only: a profile in ~/.aws; null = `AWS_PROFILE`, keys in the environment, or the machine's role."""
    anonymous: bool = False
    """true: access without credentials, for public buckets."""
    ca_file: str | None = None
    """S3 only: PEM file of the CA certificates that sign the endpoint's certificate; null = the system's."""
    patience_s: float = Field(60, gt=0, le=3600)
    """How long a request is retried while a server does not answer or reports that it is overloaded."""
    cache: str | None = None
    """Folder in which each machine keeps its copy of a workdir in a bucket, the same path on all of them; null = a private
    folder in the system's directory for temporary files."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of pyarrow.fs.S3FileSystem, GcsFileSystem and AzureFileSystem; each gets those it knows."""

    @field_validator("endpoint")
    @classmethod
    def endpoint_is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "@" in value or "?" in value:
            raise ValueError("expected http(s)://host:port and nothing else; secrets come from the environment or a profile")
        if not value.startswith(("http://", "https://")) or not has_host(value):
            raise ValueError("expected http://host:port or https://host:port")
        return value.rstrip("/")

    @field_validator("options")
    @classmethod
    def options_are_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key in _SECRET:
                raise ValueError(f"{key} is a secret, and configurations are logged; set it in the environment or in a profile")
            if key not in OPTIONS:
                near = difflib.get_close_matches(key, OPTIONS, n=1)
                raise ValueError(
                    f"{key}: unknown option" + (f"; did you mean {near[0]}?" if near else f"; known: {', '.join(OPTIONS)}")
                )
        return value

    @model_validator(mode="after")
    def credentials_are_of_one_kind(self) -> Storage:
        if self.anonymous and self.profile:
            raise ValueError("profile is not read: storage.anonymous is true; remove one of them")
        return self
