"""`w2v`: every stage and every use of the vectors as a command.

Heavy imports (mlflow, numba, dask) happen inside the command that needs them, so help and configuration errors answer at
once. Errors are one message on standard error and an exit code (`pipeline.errors.EXIT_CODES`), never a traceback; set
W2V_TRACEBACK=1 to see where one came from.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.errors import EXIT_CODES, InputError, PipelineError, UsageError

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from w2v_core.vectors import WordVectors

STAGE_HELP = {
    "tokenize": "Corpus files → tokens/.",
    "vocab": "… → vocab/: words, counts, noise table.",
    "shards": "… → shards/ of the first epoch.",
    "train": "… → vectors/.",
    "evaluate": "… → report/: analogies, similarity, neighbours.",
    "publish": "… → exports/ in other programs' formats.",
}
EXIT_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: unwind in order, then exit with 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def main() -> None:
    """Runs the command line and exits with a documented code."""
    _install_signal_handlers()
    try:
        code = commands.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except PipelineError as error:
        _show_traceback_if_asked()
        click.echo(f"w2v: {error}", err=True)
        _exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        _exit(UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\nw2v: interrupted; what is finished is kept. Resume with:\n  {_this_command()}", err=True)
        _exit(130)
    except Terminated as stop:
        click.echo(f"w2v: terminated; what is finished is kept. Resume with:\n  {_this_command()}", err=True)
        _exit(stop.exit_code)
    except BrokenPipeError:
        _exit(0)
    except Exception as error:
        _show_traceback_if_asked()
        click.echo(
            f"w2v: a bug in this program: {type(error).__name__}: {error}\n"
            "Set W2V_TRACEBACK=1 to see where, and please report it. What is finished is kept.",
            err=True,
        )
        _exit(70)


def _exit(code: int) -> None:
    """Ends now: threads of a cluster that is going down must not hold the process or print over the message."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _this_command() -> str:
    import shlex

    return " ".join(["w2v", *map(shlex.quote, sys.argv[1:])])


def _show_traceback_if_asked() -> None:
    if os.environ.get("W2V_TRACEBACK") == "1":
        import traceback

        traceback.print_exc()


def _install_signal_handlers() -> None:
    interrupts = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            # Workers notice that their parent is gone and end by themselves.
            os._exit(130)
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated(number)

    signal.signal(signal.SIGINT, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)


class _InOrder(click.Group):
    """Lists commands in the order of the pipeline, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, epilog=EXIT_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-word2vec", prog_name="w2v")
def commands() -> None:
    """Distributed word2vec: raw text in, tracked word vectors out.

    CONFIG is a YAML file; any key can be overridden behind it: w2v run configs/demo.yaml train.epochs=3
    """


def _config_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")(function)
    return click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG")(function)


def _load(path: Path, overrides: tuple[str, ...]) -> RunConfig:
    from pipeline.config import load_config

    return load_config(path, overrides)


@commands.command()
@_config_arguments
@click.option("--json", "as_json", is_flag=True, help="Print summary.json instead of tables.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def run(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """All stages in order; what is there and unchanged is reused, a broken-off run continues."""
    _run_until(config, overrides, "publish", as_json, quiet)


def _run_until(path: Path, overrides: tuple[str, ...], until: str, as_json: bool, quiet: bool) -> None:
    loaded = _load(path, overrides)
    from pipeline.progress import Progress
    from pipeline.run import run as run_pipeline

    summary = run_pipeline(loaded, until=until, progress=Progress(quiet=quiet))
    if as_json:
        click.echo(json.dumps(summary, indent=1))
    else:
        from pipeline.report.report import format_summary

        click.echo(format_summary(summary, _width()))


def _width() -> int:
    import shutil

    return min(120, max(60, shutil.get_terminal_size((100, 24)).columns))


def _add_stage_command(name: str) -> None:
    @commands.command(name, help=STAGE_HELP[name] + " Runs the stages before it as far as they are needed.")
    @_config_arguments
    @click.option("--json", "as_json", is_flag=True)
    @click.option("--quiet", is_flag=True)
    def stage(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
        _run_until(config, overrides, name, as_json, quiet)


for _name in STAGE_HELP:
    _add_stage_command(_name)


@commands.command()
@_config_arguments
@click.option("--quiet", is_flag=True)
def refresh(config: Path, overrides: tuple[str, ...], quiet: bool) -> None:
    """For a scheduler: brings everything up to date with the corpus, or says that nothing is new.

    Prints one JSON line {"status": "nothing new" | "refreshed", …}. Safe to call twice or from cron: a second call while
    one runs exits with 73.
    """
    loaded = _load(config, overrides)
    from pipeline.progress import Progress
    from pipeline.run import run as run_pipeline

    summary = run_pipeline(loaded, progress=Progress(quiet=quiet))
    fresh = [name for name, stage in summary["stages"].items() if not stage["cached"]]
    click.echo(
        json.dumps({
            "status": "refreshed" if fresh else "nothing new",
            "stages": fresh,
            "vectors": summary["vectors"],
            "tokens": summary["corpus"]["tokens"],
        })
    )  # fmt: skip


@commands.group(cls=_InOrder)
def query() -> None:
    """Ask finished vectors. SOURCE is a CONFIG, a folder with vectors, or a word2vec file (.txt, .vec, .bin)."""


@query.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "topn", default=10, show_default=True, help="How many neighbours.")
def similar(source: Path, words: tuple[str, ...], topn: int) -> None:
    """The nearest words of each WORD, by cosine. A word written -WORD counts against."""
    vectors = _find_vectors(source)
    for word in words:
        click.echo(word)
        for found, cosine in _known(lambda word=word: vectors.most_similar(word, topn=topn)):  # type: ignore[misc]
            click.echo(f"  {cosine:6.3f}  {found}")


@query.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("a")
@click.argument("b")
@click.argument("c")
@click.option("-n", "topn", default=5, show_default=True)
@click.option("--method", type=click.Choice(["3cosadd", "3cosmul"]), default="3cosadd", show_default=True)
def analogy(source: Path, a: str, b: str, c: str, topn: int, method: Literal["3cosadd", "3cosmul"]) -> None:
    """A is to B as C is to … (the words asked about are left out of the answers)."""
    vectors = _find_vectors(source)
    for found, score in _known(lambda: vectors.analogy(a, b, c, topn=topn, method=method)):
        click.echo(f"  {score:6.3f}  {found}")


def _known(ask: Callable[[], list[tuple[str, float]]]) -> list[tuple[str, float]]:
    try:
        return ask()
    except KeyError as error:
        raise InputError(str(error.args[0])) from None


def _find_vectors(source: Path) -> WordVectors:
    from w2v_core.vectors import WordVectors

    if source.suffix in (".yaml", ".yml"):
        from pipeline.run import SUMMARY

        config = _load(source, ())
        try:
            summary = json.loads((config.workdir / SUMMARY).read_text())
            return WordVectors.load(Path(summary["vectors"]["path"]))
        except (FileNotFoundError, KeyError):
            raise InputError(f"{config.workdir}: no finished run here; run: w2v run {source}") from None
    try:
        if source.is_dir():
            return WordVectors.load(source)
        from pipeline.formats.exports import read_word2vec

        return read_word2vec(source)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or source}: does not exist; give a CONFIG, a folder with vectors or a word2vec file"
        ) from None
    except ValueError as error:
        raise InputError(str(error)) from None


@commands.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("-f", "--format", "formats", multiple=True, default=("word2vec-bin",), show_default=True)
@click.option(
    "--on-unwritable", type=click.Choice(["refuse", "escape"]), help="What happens to a word that a format cannot hold."
)
def export(source: Path, directory: Path, formats: tuple[str, ...], on_unwritable: Literal["refuse", "escape"] | None) -> None:
    """Write the vectors of SOURCE into DIRECTORY: word2vec-text, word2vec-bin, npy, parquet, safetensors, tensorboard."""
    vectors = _find_vectors(source)
    from pipeline import store
    from pipeline.formats.exports import export_vectors

    try:
        directory.mkdir(parents=True, exist_ok=True)
        written = export_vectors(vectors, list(formats), directory, on_unwritable=on_unwritable)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    for paths in written.values():
        for path in paths:
            click.echo(path)


@commands.command()
@click.argument("name", type=click.Choice(["ptb", "text8"]))
@click.argument("destination", type=click.Path(path_type=Path, file_okay=False), default=Path("data"))
@click.option("--url", help="Where to get it instead of the public address.")
def fetch(name: str, destination: Path, url: str | None) -> None:
    """Download a known corpus into DESTINATION, checked by size and content."""
    from pipeline.progress import Progress
    from pipeline.text.fetch import fetch as fetch_corpus

    progress = Progress()
    click.echo(fetch_corpus(name, destination, url, progress))


@commands.command()
@_config_arguments
def status(config: Path, overrides: tuple[str, ...]) -> None:
    """What is there for this configuration: artefacts, the last summary, whether a run is working now."""
    loaded = _load(config, overrides)
    from pipeline.workdir import status_lines

    for line in status_lines(loaded):
        click.echo(line)


@commands.command()
@_config_arguments
def verify(config: Path, overrides: tuple[str, ...]) -> int:
    """Read every byte of every artefact in the workdir and compare it with what was written; exit 74 if any differs."""
    loaded = _load(config, overrides)
    from pipeline.workdir import verify_workdir

    checked, damage = verify_workdir(loaded.workdir)
    for line in damage:
        click.echo(line, err=True)
    click.echo(f"{checked} files checked, {len(damage)} damaged" + ("; run again to rebuild them" if damage else ""))
    return 74 if damage else 0


@commands.command()
@_config_arguments
@click.option("--port", default=0, help="0 = any free port.")
def ui(config: Path, overrides: tuple[str, ...], port: int) -> None:
    """Open the tracked runs in MLflow's own pages, on this machine only."""
    loaded = _load(config, overrides)
    from pipeline.tracking.tracker import tracking_uri
    from pipeline.tracking.ui import serve_ui

    serve_ui(tracking_uri(loaded.tracking, loaded.workdir), port)


if __name__ == "__main__":
    main()
