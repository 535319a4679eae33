"""The command that downloads a corpus."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.arguments import say


@click.command()
@click.argument("name", type=click.Choice(["ptb", "text8"]))
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False), default=Path("data"))
@click.option("--url", help="Download from here instead of the public address.")
def fetch(name: str, destination: Path, url: str | None) -> None:
    """Download a known corpus into DESTINATION, checked by size and content."""
    from pipeline.progress import Progress
    from pipeline.text.fetch import fetch as fetch_corpus

    with Progress() as progress:
        found = fetch_corpus(name, destination, url, progress)
    say(str(found))
