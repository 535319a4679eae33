"""The command that estimates what a run would take."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.commands.arguments import config_arguments, load, say


@click.command()
@config_arguments
@click.option(
    "--tokens", type=click.FloatRange(min=1), help="Tokens in the whole corpus, e.g. 1e12, instead of the sample's estimate."
)
@click.option("--words", type=click.FloatRange(min=2, max=2**31 - 1), help="Words in its vocabulary, likewise.")
@click.option("--hosts", default="1,2,4,8,16", show_default=True, help="Numbers of hosts to plan for.")
@click.option("--cores", type=click.IntRange(min=1), help="Cores per host; default: those of this machine.")
@click.option("--memory", type=click.FloatRange(min=0), help="GB of memory per host; default: what this machine can give now.")
@click.option("--disk", type=click.FloatRange(min=0), help="GB free for the workdir; default: what is free there now.")
@click.option("--gbit", type=click.FloatRange(min=0.001), default=10.0, show_default=True, help="Gbit/s between hosts.")
@click.option("--price", type=click.FloatRange(min=0), help="Price per host and hour.")
@click.option("--json", "as_json", is_flag=True, help="Print plain data instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
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
    if not found or not 1 <= found[0] <= found[-1] <= 10_000:
        raise UsageError(f"--hosts: expected numbers of hosts like 1,2,4, found {text!r}")
    return found
