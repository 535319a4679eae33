"""Errors of buckets: which requests are retried and for how long, and what the user is told."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import ConfigError, InputError, PermissionDeniedError, PipelineError, ServiceError, printable
from pipeline.options.storage import Storage
from pipeline.safety.deadline import within
from pipeline.storage.addresses import Address
from pipeline.storage.filesystems import credentials_of, endpoint_of

Result = TypeVar("Result")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
ANSWERED_S = 45.0
"""Time allowed for a whole answer of at most a few megabytes, unless `storage.patience_s` is longer."""
_SECRETS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN",
)  # fmt: skip
"""Variables whose values are sent to a server or used to sign requests, so that its answer could repeat them."""
_AWS = re.compile(r"AWS Error ([A-Z_0-9]+) during (\w+) operation")
_STATUS = re.compile(r"HTTP response code:? ?(\d{3})|HTTP status code:? ?(\d{3})|\((\d{3})\)")
_DENIED = (
    "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID", "UNRECOGNIZED_CLIENT",
    "MISSING_AUTHENTICATION_TOKEN", "INVALID_SIGNATURE", "EXPIRED_TOKEN", "ACCOUNT_PROBLEM", "REQUEST_EXPIRED",
)  # fmt: skip
_DENIED_WORDS = (
    "ExpiredToken",
    "InvalidToken",
    "permission denied",
    "PermissionDenied",
    "unauthorized",
    "forbidden",
    "AuthorizationFailure",
)
_NO_BUCKET = ("NO_SUCH_BUCKET", "BUCKET_NOT_FOUND")
_ELSEWHERE = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IncorrectEndpoint", "HTTP response code 301")


def patiently(
    action: Callable[[], Result], address: Address, storage: Storage, *, patience_s: float | None = None, is_long: bool = False
) -> Result:
    """The result of `action()`, retried while the server does not answer or is overloaded, for at most `storage.patience_s`.

    Each attempt may take ANSWERED_S or, if `is_long`, as long as the server keeps sending: the vendors' clients give up on a
    silent server, but not on one that sends a byte now and then. FileNotFoundError passes through. Raises PermissionDeniedError,
    InputError and ConfigError at once, ServiceError when the time is up.
    """
    started, pause_s, attempts = time.monotonic(), FIRST_PAUSE_S, 0
    patience_s = storage.patience_s if patience_s is None else min(patience_s, storage.patience_s)
    while True:
        attempts += 1
        try:
            return within(None if is_long else max(ANSWERED_S, storage.patience_s), action)
        except FileNotFoundError:
            raise
        except OSError as error:
            text = _without_secrets(str(error))
            if final := _final(text, address, storage):
                raise final from None
            if time.monotonic() + pause_s - started > patience_s:
                raise _silent(text, address, storage, attempts, time.monotonic() - started) from None
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _without_secrets(text: str) -> str:
    for name in _SECRETS:
        if len(value := os.environ.get(name, "")) >= 8:
            text = text.replace(value, f"[{name}]")
    return text


def _final(text: str, address: Address, storage: Storage) -> PipelineError | None:
    """The error to raise if retrying cannot help; otherwise None."""
    found = _AWS.search(text)
    code, operation = (found[1], found[2]) if found else ("", "")
    if any(word in text for word in _ELSEWHERE):
        return ConfigError(f"{address}: {endpoint_of(address, storage)} has the bucket in another region; set storage.region")
    if code in _NO_BUCKET or "NoSuchBucket" in text:
        return no_bucket(address, storage)
    status = next((int(number) for match in _STATUS.finditer(text) for number in match.groups() if number), 0)
    if code in _DENIED or status in (401, 403) or any(word in text for word in _DENIED_WORDS):
        what = f" ({operation})" if operation else ""
        return PermissionDeniedError(
            f"{address}: {endpoint_of(address, storage)} denies access{what}; credentials came from "
            f"{credentials_of(address, storage)}: correct them, or their permissions on the bucket"
        )
    if 400 <= status < 500 and status not in (408, 429):
        return InputError(f"{address}: {endpoint_of(address, storage)} refuses the request ({printable(text, 200)})")
    return None


def no_bucket(address: Address, storage: Storage) -> InputError:
    return InputError(
        f"{address}: there is no bucket {printable(address.bucket, 80)} at {endpoint_of(address, storage)}; create it, or "
        "correct the address or storage.endpoint"
    )


def _silent(text: str, address: Address, storage: Storage, attempts: int, seconds: float) -> ServiceError:
    reason = text.rpartition("operation: ")[2].partition("; Details")[0].removesuffix(".")
    return ServiceError(
        f"{address}: {endpoint_of(address, storage)} gave no usable answer in {attempts} attempts over {seconds:.0f} s "
        f"({printable(reason, 160)}); check storage.endpoint and the network, or raise storage.patience_s, and run the same "
        "command again, it continues"
    )
