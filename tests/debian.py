"""Programs that a test needs and that pip does not install: they are found, or installed once from Debian's packages, or the
test is skipped.

Installing requires root and `W2V_INSTALL=1`, which `.ci/run` sets; a developer's machine is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

INSTALL_S = 240


def program(name: str, package: str, folders: str = "") -> str:
    """The path of a program. If it is missing and may not or cannot be installed, the test is skipped with the reason.

    `folders`: a pattern of other folders where the package may put it.
    """
    found = _found(name, folders)
    if found is None:
        refusal = _install(package)
        found = _found(name, folders)
        if found is None:
            pytest.skip(f"{name} is not here: {refusal or f'the package {package} does not bring it'}")
    return found


def _found(name: str, folders: str) -> str | None:
    places = (os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *sorted(glob.glob(folders), reverse=True))
    return shutil.which(name, path=os.pathsep.join(places))


@cache
def _install(package: str) -> str | None:
    """Why the package was not installed; None if it was."""
    if os.environ.get("W2V_INSTALL") != "1" or os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"apt-get install {package} brings it; W2V_INSTALL=1 lets the tests do so as root"
    with (Path(tempfile.gettempdir()) / "w2v-install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one test process at a time
        with _no_service_started():
            return _apt_get("update", "-q") or _apt_get("install", "-y", "-q", "--no-install-recommends", package)


def _apt_get(*words: str) -> str | None:
    """Why it failed; None if it did not."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            ["apt-get", *words], capture_output=True, text=True, env=environment, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {words[0]} did not end within {INSTALL_S} s"
    said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"apt-get {' '.join(words)}: {said}" if done.returncode else None


@contextlib.contextmanager
def _no_service_started() -> Iterator[None]:
    """A package's own service would listen on its usual port, for everybody; the tests start theirs."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
