"""What commands share: CONFIG with its overrides, and groups that list their commands in the order they were added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.config import RunConfig


class InOrder(click.Group):
    """Lists commands in the order of the pipeline, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def config_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")(function)
    return click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")(function)


def load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from pipeline.config import load_config

    return load_config(path, overrides)
