"""Forged decisions, snapshots and summaries: every question about a workdir's past ends with an answer or an error."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.commands.refreshing import history
from pipeline.commands.removing import gc
from pipeline.commands.workdir import status
from pipeline.compare.compare import compare
from pipeline.compare.shown import as_page, as_text
from pipeline.compare.sides import open_sides
from pipeline.config import RunConfig
from pipeline.errors import PipelineError
from pipeline.history.answers import find_answer, introduce
from pipeline.progress import Progress
from pipeline.refresh.refresh import refresh
from pipeline.refresh.rollback import rollback
from pipeline.workdir import verify_workdir
from tests.security.fuzz_bench import Bench, as_written, at
from tests.security.mutations import changed


def resealed_histories(bench: Bench, rng: random.Random, folder: Path) -> None:
    """Forged decisions and snapshots, with matching checksums."""
    workdir = folder / "work"
    shutil.copytree(bench.refreshed, workdir, symlinks=True)
    kinds = ("history/*.json", "snapshots/*/snapshot.json", "snapshots/*/summary.json", "snapshots/*/corpus.json")
    victim = rng.choice(sorted(workdir.glob(rng.choice(kinds))))
    victim.write_bytes(as_written(changed(store.unsealed(victim.read_bytes()), rng)))
    if victim.parent.name == "history" and rng.random() < 0.2:
        victim.rename(victim.with_name(rng.choice(("1x.json", "999999999999.json", "9" * 200 + ".json", "0.json", "1\n.json"))))
    config, arguments = at(bench, workdir), [str(bench.folder / "c.yaml"), f"run.workdir={workdir}"]
    asked: list[Callable[[], object]] = [partial(_command, command, arguments) for command in (history, status, gc)]
    asked += [partial(_introduced, config), partial(_compared, workdir), partial(verify_workdir, workdir)]
    asked += [partial(refresh, config, workers=InProcess(), progress=Progress(quiet=True)), partial(rollback, config, None)]
    for ask in asked:
        with contextlib.suppress(PipelineError):
            ask()


def _command(command: click.Command, arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        command.main(arguments, standalone_mode=False)


def _introduced(config: RunConfig) -> None:
    if answer := find_answer(config.workdir):
        introduce(answer, config)


def _compared(workdir: Path) -> None:
    found = compare(open_sides([str(workdir), str(workdir)]))
    as_page(found)
    as_text(found)
