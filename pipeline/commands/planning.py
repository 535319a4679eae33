"""The command that estimates what a run would take."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from pipeline.commands.arguments import Whole, config_arguments, load, quiet_option, say


class Number(click.FloatRange):
    """A number between bounds; a FloatRange also takes NaN, 1_0 and the digits of other scripts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number) or not str(value).isascii() or "_" in str(value):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


MOST_HOSTS = 1000
"""The time of a plan grows with the square of the hosts: some seconds for so many."""
GIGABYTES = Number(min=0, max=1e9)


@click.command()
@config_arguments
@click.option(
    "--tokens", type=Number(min=1, max=1e15), help="Tokens in the whole corpus, e.g. 1e12, instead of the sample's estimate."
)
@click.option("--words", type=Number(min=2, max=2**31 - 1), help="Words in its vocabulary, likewise.")
@click.option("--hosts", default="1,2,4,8,16", show_default=True, help="Numbers of hosts to plan for.")
@click.option("--cores", type=Whole(min=1), help="Cores per host; default: those of this machine.")
@click.option("--memory", type=GIGABYTES, help="GB of memory per host; default: what this machine can give now.")
@click.option("--disk", type=GIGABYTES, help="GB free for the workdir; default: what is free there now.")
@click.option("--gbit", type=Number(min=0.001, max=1e6), default=10.0, show_default=True, help="Gbit/s between hosts.")
@click.option("--price", type=Number(min=0, max=1e9), help="Price per host and hour.")
@click.option("--json", "as_json", is_flag=True, help="Print plain data instead of tables.")
@quiet_option
def plan(
    config: Path, overrides: tuple[str, ...], tokens: float | None, words: float | None, hosts: str, cores: int | None,
    memory: float | None, disk: float | None, gbit: float, price: float | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Estimate what a run would take: time, memory, disk, traffic, on this machine and on several.

    Reads a sample of the corpus and measures this machine for a few seconds; the workdir is not touched. The figures of the last
    run there are shown beside the estimate.
    """
    loaded = load(config, overrides)
    from pipeline.planning.estimate import Asked, last_run, make_plan
    from pipeline.planning.shown import as_data, as_text
    from pipeline.safety.start import require_private_cache

    require_private_cache()
    asked = Asked(
        tokens=tokens, words=int(words) if words else None, hosts=_numbers(hosts), cores=cores,
        memory_bytes=int(memory * 1e9) if memory is not None else None,
        disk_bytes=int(disk * 1e9) if disk is not None else None, gbit_s=gbit, price=price,
    )  # fmt: skip
    made = make_plan(loaded, asked, (lambda text: None) if quiet else lambda text: say(f"plan: {text}", err=True))
    taken = last_run(loaded)
    say(json.dumps(as_data(made, taken), indent=1) if as_json else as_text(made, taken))


def _numbers(text: str) -> tuple[int, ...]:
    from pipeline.errors import UsageError

    try:
        found = tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not 1 <= found[0] <= found[-1] <= MOST_HOSTS:
        raise UsageError(f"--hosts: expected numbers of hosts like 1,2,4, at most {MOST_HOSTS:,}, found {text!r}")
    return found
