"""Shared by the commands: CONFIG with its overrides, and groups that list their commands in the order they were added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from w2v_core.text.printable import printable_lines

if TYPE_CHECKING:
    from pipeline.config import RunConfig


class InOrder(click.Group):
    """Lists commands in the order of the pipeline rather than alphabetically."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class VectorSource(click.ParamType[Path]):
    """A path; for an address in a bucket, the path to which its vectors were downloaded, with access set by the environment."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pipeline.storage.addresses import is_address, parse_address

        if not isinstance(value, str) or not is_address(value) or value.startswith(("models:", "runs:")):
            return Path(value)
        from pipeline.config import Storage
        from pipeline.formats.published import bring_vectors

        return bring_vectors(parse_address(value, "SOURCE"), Storage())


def config_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")(function)
    return click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")(function)


def say(text: str, *, err: bool = False) -> None:
    """Prints text without characters that could control the terminal. Everything that commands print goes through here."""
    click.echo(printable_lines(text), err=err)


def load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from pipeline.config import load_config

    config = load_config(path, overrides)
    # Imports NumPy, which a faulty configuration need not wait for.
    from pipeline.history.arrival import look

    return look(config)
