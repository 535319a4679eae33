"""A safe start for every process: no code, and no settings for code, from a folder that other users can write to.

Python puts the current folder on the import path of `python -c` and `python -m`, which is how multiprocessing, MLflow's server
and its workers are started. Numba reads `.numba_config.yaml` there, which can set the folder of its cache, and the cache holds
pickles. Without this module, anyone who can write to the folder in which a run is started (`/tmp`, a group's data) could make it
run their code.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from pipeline.errors import ConfigError, PermissionDeniedError

NUMBA_FILE = ".numba_config.yaml"
_NUMBA_SETTINGS = "numba.core.config"
_NO_FILE = os.devnull
"""The name that Numba gets instead of its file's: never a settings file, whatever the current folder holds."""


def start_safely() -> None:
    """To be called first by a program: keeps child processes from importing from the current folder, and names a folder for
    Numba's cache, which `require_private_cache` makes or checks before anything is compiled."""
    os.environ["PYTHONSAFEPATH"] = "1"
    name_cache()


def name_cache() -> None:
    """Sets NUMBA_CACHE_DIR, for this process and those it starts, where Numba cannot keep its cache beside the sources."""
    folder = numba_cache_folder(Path(__file__).parents[2], os.environ)
    if folder is not None:
        os.environ["NUMBA_CACHE_DIR"] = str(folder)


def require_private_cache() -> None:
    """To be called by commands that run compiled code: raises PermissionDeniedError if there can be no folder for Numba's cache,
    or if the one named by NUMBA_CACHE_DIR is open to others, and ConfigError if there is to be no compiled code."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0").strip() not in ("", "0"):
        raise ConfigError("NUMBA_DISABLE_JIT is set in the environment, and nothing here runs without compiled code; unset it")
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        make_private(Path(named))


def numba_cache_folder(sources: Path, environment: os._Environ[str] | dict[str, str]) -> Path | None:
    """The folder for Numba's cache; None if Numba may keep it beside the sources, as it does by default.

    Whoever can write beside the sources can also change them, so a cache there is as safe as the code, unless a `__pycache__` is
    open to more users than the folder it is in. In that case it is a folder of this user.
    """
    if named := environment.get("NUMBA_CACHE_DIR"):
        return Path(named).absolute()
    folders = [Path(folder) for folder, _, _ in os.walk(sources / "w2v_core") if Path(folder).name != "__pycache__"]
    if all(as_safe_as_its_sources(folder) for folder in folders):
        return None
    return Path(environment.get("XDG_CACHE_HOME") or _home() / ".cache").absolute() / "dask-word2vec" / "numba"


def _home() -> Path:
    """The home folder; for a user without one, as in containers that choose the user's number, the root."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def as_safe_as_its_sources(folder: Path) -> bool:
    """Whether this user can keep a cache of code beside the sources in this folder that nobody else can change."""
    if not os.access(folder, os.W_OK):
        return False
    try:
        cache, code = os.lstat(folder / "__pycache__"), os.stat(folder)
    except FileNotFoundError:
        return True  # Numba makes it, as this user
    writers = stat.S_IWGRP | stat.S_IWOTH
    same = cache.st_uid in (code.st_uid, os.getuid()) and cache.st_gid == code.st_gid
    return stat.S_ISDIR(cache.st_mode) and same and not cache.st_mode & writers & ~code.st_mode


def make_private(folder: Path) -> None:
    """Creates the folder for this user only, or checks that an existing one is owned by this user and writable by nobody else."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = os.stat(folder)
    except OSError as error:
        raise PermissionDeniedError(
            f"{folder}: no folder for Numba's cache ({error.strerror}); set NUMBA_CACHE_DIR to a folder of your own"
        ) from None
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionDeniedError(
            f"{folder}: Numba would load machine code from here, and others may write into it (owner {found.st_uid}, mode "
            f"{stat.S_IMODE(found.st_mode):o}); set NUMBA_CACHE_DIR to a folder of your own, mode 0700"
        )


# ── Numba's file in the current folder ───────────────────────────────────────────────────────────────────────────────


def ignore_numba_file() -> None:
    """Makes Numba in this process read its settings from NUMBA_… variables only, from now on."""
    loaded: ModuleType | None = sys.modules.get(_NUMBA_SETTINGS)
    if loaded is not None:
        loaded._config_fname = _NO_FILE  # type: ignore[attr-defined]
    elif not any(isinstance(finder, _NumbaSettings) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NumbaSettings())


class _NumbaSettings:
    """Finds the module of Numba that reads the file, and loads it with another name in place of the file's."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _NUMBA_SETTINGS:
            return None
        found = PathFinder.find_spec(name, path, target)
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _WithoutFile(found.loader.name, found.loader.path)
        return found


class _WithoutFile(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        code = super().get_code(fullname)
        if code is None:
            return None
        if NUMBA_FILE not in code.co_consts:
            raise ImportError(f"{fullname}: expected the name {NUMBA_FILE}, to ignore it; install the locked numba")
        return code.replace(co_consts=tuple(_NO_FILE if constant == NUMBA_FILE else constant for constant in code.co_consts))
