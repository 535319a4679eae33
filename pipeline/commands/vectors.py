"""Commands that use finished vectors: questions about them, and files for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pipeline.commands.arguments import InOrder, load
from pipeline.errors import InputError, UsageError

if TYPE_CHECKING:
    from w2v_core.vectors import WordVectors


@click.group(cls=InOrder)
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
        from pipeline.stages.evaluate import load_vectors
        from pipeline.summary import finished_vectors

        return load_vectors(finished_vectors(load(source, ()).workdir))
    try:
        if source.is_dir():
            return WordVectors.load(source, verify=True)
        from pipeline.formats.word2vec import read_word2vec

        return read_word2vec(source)
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename or source}: does not exist; give a CONFIG, a folder with vectors or a word2vec file"
        ) from None
    except ValueError as error:
        raise InputError(str(error)) from None


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("-f", "--format", "formats", multiple=True, default=("word2vec-bin",), show_default=True)
@click.option(
    "--on-unwritable", type=click.Choice(["refuse", "escape"]), help="What happens to a word that a format cannot hold."
)
@click.option("--force", is_flag=True, help="Replace files in DIRECTORY that no export has written.")
def export(
    source: Path, directory: Path, formats: tuple[str, ...], on_unwritable: Literal["refuse", "escape"] | None, force: bool
) -> None:
    """Write the vectors of SOURCE into DIRECTORY: word2vec-text, word2vec-bin, npy, parquet, safetensors, tensorboard."""
    vectors = _find_vectors(source)
    from pipeline import store
    from pipeline.formats.exports import export_vectors
    from pipeline.formats.placing import place

    try:
        written = place(
            directory, lambda folder: export_vectors(vectors, list(formats), folder, on_unwritable=on_unwritable), force=force
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise store.explain_os_error(error, directory) from error
    for paths in written.values():
        for path in paths:
            click.echo(path)
