"""The commands that inspect a workdir: its content, whether every byte is intact, and MLflow's pages."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.commands.arguments import Whole, json_option, load_run, names_workdir, run_arguments, say


@click.command()
@run_arguments
@json_option
def status(run: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show what there is: artefacts, the last complete run, and whether a run is working now. RUN is a CONFIG or a workdir.

    With --json: workdir, exists, place (in a bucket), working and working_there (who works here, and in the bucket; null if
    nobody), artefacts (stage, fingerprint, files, bytes), problems (texts), last_run (complete, incomplete, damaged), answer (of
    queries: run_id, made in seconds since 1970, vectors; for a CONFIG same_configuration and differences; null if there is
    none), tracked (uri, run_id, complete, message).
    """
    loaded = load_run(run, overrides)
    from pipeline.workdir import status_lines, status_of

    told = status_of(loaded, compared=not names_workdir(run))
    if as_json:
        say(json.dumps(told, indent=1))
        return
    for line in status_lines(told):
        say(line)


@click.command()
@run_arguments
@json_option
def verify(run: str, overrides: tuple[str, ...], as_json: bool) -> int:
    """Check every byte of every artefact in the workdir against its checksum; exit 74 if any differs.

    RUN is a CONFIG or a workdir. With --json: workdir, files (how many were checked), damage (a text for each problem).
    """
    loaded = load_run(run, overrides)
    from pipeline.errors import InputError, counted
    from pipeline.workdir import verify_workdir

    checked, damage = verify_workdir(loaded.workdir)
    if not checked and not damage:
        raise InputError(f"{loaded.workdir}: nothing to check here; no run has left anything, or the folder is not mounted")
    if as_json:
        say(json.dumps({"workdir": str(loaded.workdir), "files": checked, "damage": damage}, indent=1))
        return 74 if damage else 0
    for line in damage:
        say(line, err=True)
    say(f"{counted(checked, 'files|file')} checked, {len(damage)} damaged" + ("; run again to rebuild them" if damage else ""))
    return 74 if damage else 0


@click.command()
@run_arguments
@click.option("--port", default=0, type=Whole(0, 65535), help="0 = any free port.")
def ui(run: str, overrides: tuple[str, ...], port: int) -> None:
    """Open the tracked runs in MLflow's own pages, on this machine only: the table of runs with their scores.

    RUN is a CONFIG, or a workdir whose runs are tracked beside it (otherwise add tracking.uri=… and tracking.experiment=…).
    """
    loaded = load_run(run, overrides)
    from pipeline.cluster.pages import find_pages
    from pipeline.tracking.start_page import start_page
    from pipeline.tracking.tracker import tracking_uri
    from pipeline.tracking.ui import serve_ui

    uri = tracking_uri(loaded.tracking, loaded.workdir)
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    start = start_page(database, loaded.tracking.experiment) if uri.startswith("sqlite:///") else "/"
    if pages := find_pages(loaded.workdir):
        say(pages.link)
    elif dashboard := loaded.cluster.options.get("dashboard_address"):
        say(f"Dask's pages of a run in progress: http://{dashboard} (cluster.options.dashboard_address)")
    else:
        say("Dask: no run with its own cluster is working in this workdir now; `w2v run` prints the link when one does")
    serve_ui(uri, port, start)
