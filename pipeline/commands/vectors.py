"""The commands that use finished vectors: queries, scores, and exports for other programs.

SOURCE is a CONFIG or a workdir with a finished run, a folder with vectors, or a file of vectors from any program; whatever is
skipped in a file is reported on standard error.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from pipeline.commands.arguments import InOrder, Question, VectorSource, Whole, json_option, load, quiet_option, say
from pipeline.commands.running import run_until, show_refreshed
from pipeline.errors import DataError, InputError, PipelineError, UsageError, printable

if TYPE_CHECKING:
    from w2v_core.vectors import WordVectors

_OVERRIDE = re.compile(r"[a-z_]+(\.[A-Za-z0-9_-]+)+=")
"""What an override looks like; a word with `=` in it hardly ever has this form."""
Neighbours = list[tuple[str, float]]


def source_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds SOURCE and the options for reading a file of vectors, which commands receive as keyword arguments `reading`."""
    for option in (
        click.option("--limit", type=Whole(min=1), help="Read only the first N words of a file."),
        click.option("--no-header", is_flag=True, default=None, help="The file has no header; its first line is a word (GloVe)."),
        click.option("--binary/--text", default=None, help="The file's format, if it is not recognised."),
        click.option(
            "--unicode-errors", type=click.Choice(["replace", "ignore", "backslashreplace"]), help="For words that are not UTF-8."
        ),
        click.option("--allow-unfinished", is_flag=True, default=None, help="Accept a last line without a line end."),
    ):
        function = option(function)
    return click.argument("source", type=VectorSource())(function)


@click.group(cls=InOrder)
def query() -> None:
    """Query finished vectors.

    SOURCE is a CONFIG, a workdir, a folder with vectors, a file of vectors (word2vec, GloVe, Parquet, safetensors), or the
    address of one of them in a bucket (s3://…; access is set by AWS_ENDPOINT_URL and the like). After a CONFIG, key=value among
    the words overrides a setting, as for every command.
    """


@query.command(cls=Question)
@source_arguments
@click.argument("words", nargs=-1)
@click.option("-n", "topn", default=10, show_default=True, type=Whole(min=1), help="How many neighbours.")
@click.option("--words-from", "file", type=click.File("rb"), help="Also each word of this file, one a line; - is standard input.")
@json_option
def similar(source: Path, words: tuple[str, ...], topn: int, file: IO[bytes] | None, as_json: bool, **reading: Any) -> None:
    """Find the nearest words of each WORD, by cosine.

    A word written -WORD is subtracted; all words are then combined into one query: w2v query similar CONFIG king woman -man. What
    begins with two hyphens is an option, unless -- stands before it.
    """
    overrides, words = _split(source, words)
    vectors = find_vectors(source, overrides, **reading)
    minus = [word[1:] for word in words if len(word) > 1 and word.startswith("-")]
    plus = [word for word in words if not (len(word) > 1 and word.startswith("-"))]
    if file:
        lines = file.read().decode("utf-8", "surrogateescape").split("\n")
        plus += [line.removesuffix("\r") for line in lines if line.strip()]
    if not plus + minus:
        raise UsageError("query similar: give at least one word")
    questions = [(plus, minus)] if minus else [([word], []) for word in plus]
    unknown: list[InputError] = []
    found: list[dict[str, Any]] = []
    for question in questions:
        try:
            with _asking(source):
                answers = vectors.most_similar(*question, topn=topn)
        except InputError as error:
            # The other words are still answered.
            unknown.append(error)
            continue
        if as_json:
            found.append({"positive": question[0], "negative": question[1], "found": _as_data(answers)})
            continue
        say(" ".join([*question[0], *(f"−{word}" for word in question[1])]))
        _show(answers)
    if as_json:
        say(json.dumps({"vectors": str(source), "answers": found}, indent=1))
    if unknown:
        raise InputError("\n".join(map(str, unknown)))


@query.command(cls=Question)
@source_arguments
@click.argument("words", nargs=-1, required=True, metavar="A B C")
@click.option("-n", "topn", default=5, show_default=True, type=Whole(min=1), help="How many answers.")
@click.option(
    "--method", type=click.Choice(["3cosadd", "3cosmul"]), default="3cosadd", show_default=True, help="Sum or product of cosines."
)
@json_option
def analogy(
    source: Path, words: tuple[str, ...], topn: int, method: Literal["3cosadd", "3cosmul"], as_json: bool, **reading: Any
) -> None:
    """Complete the analogy A is to B as C is to … (A, B and C are excluded from the answers)."""
    overrides, words = _split(source, words)
    if len(words) != 3:
        raise UsageError(f"query analogy: expected three words, A B C, found {len(words)}")
    vectors = find_vectors(source, overrides, **reading)
    with _asking(source):
        _tell(source, words, vectors.analogy(*words, topn=topn, method=method), as_json)


@query.command(cls=Question)
@source_arguments
@click.argument("words", nargs=-1, required=True)
@click.option("-n", "topn", default=10, show_default=True, type=Whole(min=1), help="How many words.")
@json_option
def predict(source: Path, words: tuple[str, ...], topn: int, as_json: bool, **reading: Any) -> None:
    """Predict the words most likely among these context WORDs, with their probabilities.

    Needs the output vectors, which training stores beside the others: SOURCE is a CONFIG, or the folder written by training.
    """
    overrides, words = _split(source, words)
    vectors = find_vectors(source, overrides, **reading)
    with _asking(source), _told():
        _tell(source, words, vectors.predict_output_word(words, topn), as_json)


@click.command()
@source_arguments
@click.argument("rest", nargs=-1, metavar="[KEY=VALUE | SET]…")
@click.option("--method", type=click.Choice(["3cosadd", "3cosmul"]), help="How analogies are scored (SETs).")
@click.option("--restrict-vocab", type=Whole(min=1), help="Restrict analogies to the first N words (SETs).")
@click.option("--case-sensitive", is_flag=True, help="Distinguish upper and lower case (SETs).")
@click.option("--syntactic", help="Regular expression for the names of syntactic analogy sections (SETs).")
@click.option("--json", "as_json", is_flag=True, help="Print summary.json, or the scores on SETs, instead of tables.")
@quiet_option
def evaluate(source: Path, rest: tuple[str, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """… → report/: analogies, similarity, neighbours; or the scores of any vectors on SETs.

    w2v evaluate CONFIG runs the stages before it as needed, and shows what w2v refresh made as it is. With SETs (files of
    analogies or of word pairs), SOURCE is a CONFIG with a finished run, a folder with vectors, or a file of vectors, and the
    scores are printed.
    """
    from pipeline.history.answers import is_configuration

    rules = {key: options.pop(key) for key in ("method", "restrict_vocab", "case_sensitive", "syntactic")}
    overrides, paths = _split(source, rest)
    if not paths and is_configuration(source):
        if any(rules.values()):
            raise UsageError("evaluate CONFIG: these options are for SETs; set evaluate.method=… and the like instead")
        if not show_refreshed(source, overrides, as_json):
            run_until(source, overrides, "evaluate", as_json, quiet)
    elif not paths:
        raise UsageError(f"evaluate {source}: give sets to score it on (analogies or word pairs), or a CONFIG (.yaml)")
    else:
        _score(find_vectors(source, overrides, **options), source, paths, rules, as_json)


def _score(vectors: WordVectors, source: Path, paths: Sequence[str], wanted: dict[str, Any], as_json: bool) -> None:
    from pipeline.report.report import evaluation_lines
    from pipeline.stages.evaluate import headline
    from pipeline.stages.sets import Rules, score_sets

    given = {key: wanted[key] for key in ("method", "restrict_vocab", "syntactic") if wanted[key] is not None}
    try:
        re.compile(given.get("syntactic", ""))
    except re.error as error:
        raise UsageError(f"--syntactic: not a regular expression ({error})") from None
    with _asking(source):
        scores = score_sets(vectors, paths, Rules(case_insensitive=not wanted["case_sensitive"], **given))
    if as_json:
        say(json.dumps({"vectors": str(source), **scores}, indent=1))
        return
    for line in evaluation_lines({"evaluation": headline(scores)}):
        say(line)
    for note in scores["notes"]:
        say(f"note: {note}", err=True)


@click.command()
@source_arguments
@click.argument("directory", metavar="TARGET")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]…")
@click.option(
    "-f", "--format", "formats", multiple=True, help="Repeat it for several.  [default: by TARGET's ending; word2vec-bin]"
)
@click.option(
    "--on-unwritable", type=click.Choice(["refuse", "escape"]), help="What to do with a word that a format cannot hold."
)
@click.option("--words", type=Whole(min=1), help="Only the N most frequent words.")
@click.option("--float16", is_flag=True, help="Half the size: npy, parquet, safetensors, text.")
@click.option("--without-header", is_flag=True, help="word2vec-text without its first line, like GloVe's files.")
@click.option("--counts", is_flag=True, help="With counts: vocab.txt beside word2vec's files, a tensor in safetensors.")
@click.option("--force", is_flag=True, help="Replace TARGET, or files in it that no export has written.")
def export(
    source: Path, directory: str, overrides: tuple[str, ...], formats: tuple[str, ...], force: bool, **options: Any
) -> None:
    """Write the vectors of SOURCE: word2vec-text (also fastText's .vec), word2vec-bin, npy, parquet, safetensors, tensorboard.

    TARGET is a folder, or a file that ends in .vec or .txt (word2vec-text), .bin (word2vec-bin) or .parquet.

    TARGET may be a place in a bucket, s3://bucket/vectors: each export gets its own folder there, and latest.json, written last,
    names the files of the latest one. Access to the bucket is set by `storage:` in CONFIG, or by the environment.
    """
    if not directory:
        raise UsageError("export: TARGET is an empty text; write . for the current folder")
    if directory == "-":
        raise UsageError("export: vectors are not written to standard output; give a folder, or a file such as vectors.vec")
    form = _file_format(directory, formats)
    formats = (form,) if form else formats or ("word2vec-bin",)
    how = {key: options.pop(key) for key in ("on_unwritable", "words", "float16", "without_header", "counts")}
    vectors = find_vectors(source, overrides, **options)
    from pipeline.formats.exports import Wanted, export_vectors

    wanted = Wanted(
        how["words"], "float16" if how["float16"] else "float32", not how["without_header"], how["counts"], how["on_unwritable"]
    )
    with _asking(source):
        _ = vectors.norms  # raises for non-finite numbers, which would otherwise be found only by readers of the files
    try:
        placed = _place(
            source, overrides, directory, lambda to: export_vectors(vectors, list(formats), to, wanted), force, as_file=bool(form)
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    for path in placed:
        say(path)


def _file_format(target: str, formats: Sequence[str]) -> str | None:
    """The format of the file that TARGET names; None for a folder. Raises UsageError if it cannot be, or not in the formats."""
    from pipeline.formats.exports import format_of_file

    if target.endswith("/") or os.path.isdir(target):
        return None
    try:
        form = format_of_file(target)
    except ValueError as error:
        raise UsageError(f"export: {error}") from None
    if form and "://" in target:
        raise UsageError(f"export: {target}: an export to a bucket is a folder; leave out the ending, and give -f {form}")
    if form and any(other != form for other in formats):
        others = ", ".join(other for other in formats if other != form)
        raise UsageError(f"export: {target} is the name of a file, in {form}; for {others} give a folder, or another ending")
    return form


def _place(
    source: Path, overrides: Sequence[str], directory: str, write: Callable[[Path], dict[str, list[Path]]], force: bool,
    *, as_file: bool,
) -> list[str]:  # fmt: skip
    """The paths or addresses of the files written by `write(folder)`, placed in a folder or a bucket, or as the one file."""
    from pipeline.config import Storage
    from pipeline.errors import explain_os_error
    from pipeline.formats.placing import place, place_file, place_in_bucket
    from pipeline.history.answers import is_configuration
    from pipeline.storage.addresses import is_address, parse_address

    if is_address(directory):
        storage = load(source, tuple(overrides)).storage if is_configuration(source) else Storage()
        found = place_in_bucket(parse_address(directory, "DIRECTORY"), storage, write)
        return [address for addresses in found.values() for address in addresses]
    folder = Path(directory)
    if folder.exists() and not folder.is_dir() and not as_file:
        raise UsageError(f"{folder}: expected a folder, found a file")
    try:
        if as_file:
            return [str(path) for path in place_file(folder, write, force=force)]
        return [str(path) for paths in place(folder, write, force=force).values() for path in paths]
    except OSError as error:
        raise explain_os_error(error, folder) from error


# ── the vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _split(source: Path, arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(overrides, the rest) of the arguments after SOURCE; only a CONFIG can have overrides."""
    from pipeline.history.answers import is_configuration

    if not is_configuration(source):
        return (), tuple(arguments)
    overrides = tuple(argument for argument in arguments if _OVERRIDE.match(argument))
    return overrides, tuple(argument for argument in arguments if argument not in overrides)


def find_vectors(source: Path, overrides: Sequence[str] = (), **reading: Any) -> WordVectors:
    """The vectors of SOURCE; `reading` are options of `WordVectors.load`, None if not given.

    Raises InputError, DataError, DamagedError, UsageError. Notes about the file, and which run answers, go to standard error.
    """
    from pipeline.history.answers import (
        intact_vectors,
        introduce,
        is_configuration,
        is_workdir,
        require_answer,
        snapshot_vectors,
        why_none,
    )
    from w2v_core.vectors import WordVectors

    options = {key: value for key, value in reading.items() if value is not None}
    kind = "configuration" if is_configuration(source) else "workdir" if is_workdir(source) else None
    if kind and options:
        raise UsageError(f"--{next(iter(options)).replace('_', '-')} is for files of vectors, and {source} is a {kind}")
    if kind:
        from pipeline.formats.trained import load_vectors

        config = load(source, tuple(overrides)) if kind == "configuration" else None
        answer = require_answer(config.workdir if config else source)
        vectors = load_vectors(intact_vectors(answer))
        say(introduce(answer, config), err=True)
        return vectors
    if overrides:
        raise UsageError(f"{overrides[0]}: only a CONFIG (.yaml) has settings to override, and {source} is not one")
    try:
        with _told():
            return WordVectors.load(snapshot_vectors(source), verify=os.path.isdir(source), **options)
    except FileNotFoundError as error:
        if error.errno is None:  # of an address, with a message of its own
            raise InputError(str(error)) from None
        way_out = "give a CONFIG, a workdir, a folder with vectors or a file of vectors"
        raise InputError(f"{source}: {why_none(source)}; {way_out}") from None
    except OSError as error:
        raise InputError(f"{error.filename or source}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(_as_options(str(error))) from None


@contextmanager
def _told() -> Iterator[None]:
    """Prints the notes of readers and of queries to standard error; other warnings are passed on."""
    from w2v_core.vectors import UnknownWordsNote, VectorFileNote

    with warnings.catch_warnings(record=True) as caught:
        for noted in (VectorFileNote, UnknownWordsNote):
            warnings.simplefilter("always", noted)
        yield
    for warning in caught:
        if issubclass(warning.category, (VectorFileNote, UnknownWordsNote)):
            say(f"note: {warning.message}", err=True)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _as_options(message: str) -> str:
    """A message in terms of Python, reworded for the command line: limit=3 becomes --limit 3."""
    message = re.sub(r"\b(limit|unicode_errors)='?(\w+)'?", lambda found: f"--{found[1].replace('_', '-')} {found[2]}", message)
    message = re.sub(r"\b(binary|no_header|allow_unfinished)=True", lambda found: f"--{found[1].replace('_', '-')}", message)
    return message.replace("allow_unfinished", "--allow-unfinished").replace("no_header", "--no-header")


@contextmanager
def _asking(source: Path) -> Iterator[None]:
    """Turns errors of queries into ours: an unknown word is an InputError, vectors that cannot be used a DataError."""
    try:
        yield
    except PipelineError:
        raise
    except KeyError as error:
        raise InputError(str(error.args[0])) from None
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None


def _tell(source: Path, words: Sequence[str], answers: Neighbours, as_json: bool) -> None:
    if as_json:
        found = {"vectors": str(source), "words": list(words), "found": _as_data(answers)}
        say(json.dumps(found, indent=1))
    else:
        _show(answers)


def _as_data(answers: Neighbours) -> list[dict[str, str | float]]:
    return [{"word": word, "score": score} for word, score in answers]


def _show(answers: Neighbours) -> None:
    for found, score in answers:
        say(f"  {score:6.3f}  {printable(found, None)}")
