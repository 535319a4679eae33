"""The command that compares results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from pipeline.commands.arguments import say


@click.command()
@click.argument("sources", nargs=-1, metavar="RUN RUN…")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as an HTML page.")
def compare(sources: tuple[str, ...], as_json: bool, page: Path | None) -> None:
    """Compare results: settings, scores with their coverage, seconds, and the words whose neighbours moved most.

    A RUN is a CONFIG, a workdir, a snapshot in one, a folder with vectors, or a file of vectors; all are compared with the first.
    """
    from pipeline.compare.compare import compare as lay_beside
    from pipeline.compare.shown import as_page, as_text
    from pipeline.compare.sides import open_sides
    from pipeline.report.results import finite
    from pipeline.safety.outputs import target_of
    from pipeline.store import explain_os_error, write_bytes

    found = lay_beside(open_sides(sources))
    say(json.dumps(finite(found), indent=1) if as_json else as_text(found, max(60, shutil.get_terminal_size((100, 24)).columns)))
    if page:
        try:
            write_bytes(target_of(page), as_page(found).encode())
        except OSError as error:
            raise explain_os_error(error, page) from error
        if not as_json:
            say(f"\npage  {page}")
