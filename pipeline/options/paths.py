"""Paths in a configuration are relative to its file, so that a run is the same from every folder, whether from a shell or cron.

A path on the command line is relative to the current folder, as usual.
"""

from __future__ import annotations

import functools
import glob
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, printable, without_credentials

PATHS = {
    "run": ("workdir",),
    "corpus": ("inputs",),
    "train": ("start_from",),
    "evaluate": ("analogies", "similarity"),
    "tracking": ("uri", "textfile"),
    "cluster": ("tls",),
    "storage": ("ca_file", "cache"),
}
"""The keys that hold paths, by section; a list or mapping holds several."""
INPUTS = (("corpus", "inputs"), ("evaluate", "analogies"), ("evaluate", "similarity"))
"""The keys whose files must exist."""
_SQLITE = "sqlite:///"
_VARIABLE = re.compile(r"\$\{\w+\}|(?:^|/)\$[A-Za-z_]\w*")
"""A variable as shells write it: `${NAME}` anywhere, `$NAME` at the beginning of a name."""


def anchored(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The sections of a configuration file in `folder`, with relative paths rewritten for the current folder."""
    return _mapped(tree, lambda path: _join(folder, path))


def at_home(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The sections with `~` at the beginning of a path replaced by the home folder: no shell does it in a file or after `=`."""
    return _mapped(tree, os.path.expanduser)


def refuse_variables(tree: Mapping[str, Any]) -> None:
    """Raises ConfigError for a path with a shell's variable, such as $HOME: nothing replaces it, and a run would make a folder
    of that name. A name that exists is meant as it is."""

    def refuse(key: str, path: str) -> str:
        file = path.removeprefix(_SQLITE)
        if (found := _VARIABLE.search(file)) and not os.path.lexists(file) and not glob.glob(file):
            raise ConfigError(
                f"{key}: {found.group().removeprefix('/')} is not replaced in a configuration, and there is no "
                f"{printable(without_credentials(file), 200)}; write the path itself, ~ for the home folder, or give the setting "
                f'on the command line, where the shell replaces it: {key}="$HOME/…"'
            )
        return path

    for section, keys in PATHS.items():
        if isinstance(values := tree.get(section), Mapping):
            for key in keys:
                _each(values.get(key), functools.partial(refuse, f"{section}.{key}"))


def portable(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The sections with paths relative to the configuration's folder: the same from wherever it is run."""
    return _mapped(fields, lambda path: path if _is_address(path) else os.path.relpath(os.path.abspath(path), folder))


def moved_back(fields: Mapping[str, Any], folder: Path, former: Path, then: Mapping[str, Any]) -> dict[str, Any]:
    """The sections as they would be if the folder of the configuration, with the files that it names, were still `former`. Paths
    that the sections `then`, from before, have too are elsewhere, and stay."""
    unmoved = set[str]()

    def note(path: str) -> str:
        unmoved.add(path)
        return path

    def back(path: str) -> str:
        if path in unmoved or _is_address(path):
            return path
        return _join(former, os.path.relpath(os.path.abspath(path), folder))

    _mapped(then, note)
    return _mapped(fields, back)


def _mapped(tree: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    found = dict(tree)
    for section, keys in PATHS.items():
        if isinstance(values := found.get(section), Mapping):
            changed = {key: _each(values[key], change) for key in keys if key in values}
            found[section] = dict(values) | changed
    return found


def _each(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value) if value else value
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    return {key: _each(item, change) for key, item in value.items()} if isinstance(value, Mapping) else value


def _join(folder: Path, path: str) -> str:
    if path.startswith(_SQLITE) and not path.startswith(f"{_SQLITE}/"):
        file, question, rest = path.removeprefix(_SQLITE).partition("?")
        return f"{_SQLITE}{os.path.abspath(folder / file)}{question}{rest}"
    if _is_address(path) or os.path.isabs(os.path.expanduser(path)):
        return path
    before = glob.escape(str(folder)) if glob.has_magic(path) else str(folder)
    return os.path.normpath(os.path.join(before, path))


def _is_address(path: str) -> bool:
    """Whether it is not a local path: `pydocs:`, `s3://…`, `models:/…`, standard input."""
    return path == "-" or bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path))


def explain_moved(tree: Mapping[str, Any], folder: Path, workdir: Path, name: str, overridden: Collection[str] = ()) -> None:
    """Raises ConfigError for a file written when paths were relative to the current folder: if an input, or the results of an
    earlier run, exist relative to the current folder but not relative to the file.

    `tree` is the file's content, `workdir` its workdir as resolved now; keys that are `overridden` ("section.key") do not count.
    """
    if os.path.realpath(folder) == os.path.realpath("."):
        return
    for section, key in INPUTS:
        values = tree.get(section)
        given = values.get(key) if isinstance(values, Mapping) else None
        if f"{section}.{key}" in overridden:
            continue
        for path in [given] if isinstance(given, str) else given if isinstance(given, list) else []:
            if isinstance(path, str) and path and _is_there(path) and not _is_there(_join(folder, path)):
                raise ConfigError(
                    f"{section}.{key}: {printable(path, 200)} is not in {folder}, but in the current folder. Paths in a "
                    f"configuration are relative to its file: write {os.path.relpath(path, folder)}"
                )
    if "run.workdir" in overridden:
        return
    run = tree.get("run")
    before = Path(run.get("workdir") or f"runs/{name}") if isinstance(run, Mapping) else Path("runs") / name
    if not before.is_absolute() and (before / "tokens").is_dir() and not workdir.exists():
        raise ConfigError(
            f"run.workdir: an earlier run lies in {before.absolute()}, but paths in a configuration are now relative to its "
            f"file: {workdir}. Write run.workdir: {os.path.relpath(before, folder)}, or move the folder there"
        )


def _is_there(path: str) -> bool:
    return not _is_address(path) and (os.path.exists(path) or bool(glob.glob(path)))
