"""Corpus → tokens/: sentences of part-local word ids, and each part's own words with their counts.

    tokens/parts/<key>-000.tokens.parquet      token: int32, all sentences one after the other
    tokens/parts/<key>-000.sentences.parquet   length: int32, the tokens of each sentence
    tokens/parts/<key>-000.words.parquet       word: string, count: int64; the row is the id
    tokens/parts/<key>.json                    the part's record, written last
    tokens/<fingerprint>/manifest.json         the parts of one corpus in order

Ids are dictionary codes in their own plain column rather than Parquet's dictionary of strings, which gives up above a page's
size, and flat, because a list column takes twice as long to read, in every epoch (infra/decisions/0004-token-files.md).

A part's key hashes the content of its text and the tokenizer, so a corpus that grew shares the unchanged parts, and after a kill
a run only makes the missing ones. A part's files are a pure function of its key: every worker writes the same bytes. A part with
much more text than a block (a large compressed file) becomes several triples of files.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.state import WithState, WorkerState
from pipeline.cluster.workers import DeadlyTaskError
from pipeline.config import RunConfig, Tokenize
from pipeline.errors import InputError, counted, printable, told_of_file
from pipeline.safety.files import read_inside
from pipeline.safety.seals import canonical_json, sealed, unsealed
from pipeline.stages.work import Done, Identity, Told, Work
from pipeline.storage.local_files import is_listed, sizes_there
from pipeline.stream.part_files import TokenFiles, column
from pipeline.stream.sampling import KeptStreams
from pipeline.text.characters import unspaced_scripts
from pipeline.text.cutting import cut_parts, group_tasks
from pipeline.text.inputs import Filter
from pipeline.text.losses import ReadCounts, book_chunk
from pipeline.text.pieces import CorpusPlan, TextPart
from pipeline.text.reading import Chunk, Reading, read_part
from pipeline.text.tokenizers import Tokenizer, identify, load_tokenizer, word_array
from pipeline.text.whole import whole_corpus

if TYPE_CHECKING:
    from w2v_core.text.words import WordTable

STAGE = "tokens"
STAGE_VERSION = 4
PARTS = store.SHARED
_GROUP_TOKENS = 4 << 20
_DROPPED_SHOWN = 3


@dataclass(frozen=True)
class TokenizeTask:
    """The tokenization of one part. Paths say where files are read and written; they never affect the result."""

    part: TextPart
    key: str
    directory: str
    config: Tokenize
    reading: Reading
    output_bytes: int
    """A new triple of files begins once the current one holds this many bytes of text."""


@dataclass(frozen=True)
class Output:
    """A triple of files: ids, sentences and words."""

    tokens: store.Part
    sentences: store.Part
    words: store.Part

    @property
    def files(self) -> tuple[store.Part, ...]:
        return (self.tokens, self.sentences, self.words)


@dataclass(frozen=True)
class PartRecord:
    """The record of a tokenized part, without paths, so that it holds for the same text under any name."""

    key: str
    outputs: tuple[Output, ...]
    stored_bytes: int
    tokens: int
    sentences: int
    dropped_samples: tuple[str, ...]
    sizes: Mapping[str, Mapping[str, int]]
    """What became of the bytes of each piece (losses.py), by the piece's index in the part."""
    things: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)
    text_sha256: Mapping[str, str] = field(default_factory=dict)
    """Digests of the content of compressed files."""
    scripts: Mapping[str, int] = field(default_factory=dict)
    """Number of single-letter words by script, for scripts written without spaces."""
    remarks: Mapping[str, int] = field(default_factory=dict)
    version: int = STAGE_VERSION


def identity(config: RunConfig, plan: CorpusPlan) -> Identity:
    """(fingerprint, fields read, inputs) of the tokens for this corpus and these settings."""
    fields = _fields(config)
    inputs = tuple(part.key for part in cut_parts(plan, config.corpus.block_bytes))
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def _fields(config: RunConfig) -> dict[str, Any]:
    """The settings that can change a token, unlike the corpus's location and the tolerated damage."""
    from pipeline.text.pydocs import EXTRACTOR_VERSION

    corpus = config.corpus
    return identify(config.tokenize) | {
        "max_token_bytes": config.tokenize.max_token_bytes,
        "end_of_line": config.tokenize.end_of_line,
        "format": corpus.format,
        "text_field": corpus.text_field if corpus.format != "lines" else None,
        "encoding": corpus.encoding,
        "encoding_errors": corpus.encoding_errors,
        "members": [sorted(corpus.include), sorted(corpus.exclude)],
        "block_bytes": corpus.block_bytes,
        "pydocs": EXTRACTOR_VERSION if "pydocs:" in corpus.inputs else None,
    }


def build(work: Work, plan: CorpusPlan) -> store.Artefact:
    """The committed tokens of a corpus; existing parts are reused.

    `work.watch.on_part` is called once with each part's record, reused or made. Raises InputError for a corpus without files,
    DataError for one without tokens, and the errors of reading.py for files that cannot be used.
    """
    config, workdir, on_part = work.config, work.workdir, work.watch.on_part
    if not plan.files:
        raise InputError("corpus.inputs: no files to read; check the paths")
    fingerprint, fields, inputs = identity(config, plan)
    tasks = plan_tasks(config, plan, workdir, fields)
    records = {}
    for record in _finished_of(tasks):
        records[record.key] = record
        on_part(record)
    missing = {task.key: task for task in tasks if task.key not in records}
    groups = group_tasks(list(missing.values()), config.corpus.block_bytes)

    def tell(found: list[PartRecord]) -> None:
        for record in found:
            on_part(record)

    try:
        made = work.workers.map(WithState(tokenize_parts), groups, label="tokenize", on_done=tell)
    except DeadlyTaskError as error:
        raise error.over_text(_unfinished(error.items)) from error
    records |= {record.key: record for found in made for record in found}
    ordered = [records[task.key] for task in tasks]
    totals = whole_corpus(config, plan, [(task.part, record) for task, record in zip(tasks, ordered, strict=True)])
    parts = tuple(_named(part) for record in ordered for output in record.outputs for part in output.files)
    return store.commit(
        workdir,
        store.Manifest(stage=STAGE, fingerprint=fingerprint, parts=parts, totals=totals, fields=fields, inputs=inputs),
    )


def describe(done: Done) -> Told:
    totals = done.totals
    return Told(
        f"{counted(totals['tokens'], 'tokens|token')} in {counted(totals['sentences'], 'sentences|sentence')}",
        tokens=totals["tokens"], row={"bytes": totals["bytes_read"]},
        sections={"corpus": dict(totals)},
    )  # fmt: skip


def _named(part: store.Part) -> store.Part:
    return store.Part(**(asdict(part) | {"name": f"../{PARTS}/{part.name}"}))


def plan_tasks(config: RunConfig, plan: CorpusPlan, workdir: Path, fields: Mapping[str, Any]) -> list[TokenizeTask]:
    """One task per part, in part order; parts with equal content have equal keys and write the same files."""
    corpus = config.corpus
    reading = Reading(
        format=corpus.format,
        text_field=corpus.text_field,
        strict=corpus.encoding_errors == "strict",
        max_ratio=corpus.max_ratio,
        encoding=corpus.encoding,
        stop_at_bad_records=corpus.bad_records == "stop",
        chosen=Filter(tuple(corpus.include), tuple(corpus.exclude)),
        sniff=corpus.sniff,
        storage=config.storage,
        unspaced=config.tokenize.tokenizer == "simple",
    )
    return [
        TokenizeTask(
            part=part,
            key=hashlib.sha256(canonical_json([STAGE, STAGE_VERSION, dict(fields), part.key])).hexdigest()[:16],
            directory=str(workdir / STAGE / PARTS),
            config=config.tokenize,
            reading=reading,
            output_bytes=2 * corpus.block_bytes,
        )
        for part in cut_parts(plan, corpus.block_bytes)
    ]


def _unfinished(groups: Sequence[Any]) -> str:
    """The place of the first unfinished part of each of these groups of parts."""
    unfinished = (next((task for task in group if not finished(task)), None) for group in groups)
    return "; ".join(task.part.place for task in unfinished if task)


def _finished_of(tasks: Sequence[TokenizeTask]) -> Iterator[PartRecord]:
    """The existing records, each once. A bucket is listed once for all of them, and several are read concurrently, because
    requests are slow."""
    there = sizes_there(Path(tasks[0].directory)) if tasks else None
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(lambda task: finished(task, there), {task.key: task for task in tasks}.values())
        yield from filter(None, found)


def finished(task: TokenizeTask, there: Mapping[str, int] | None = None) -> PartRecord | None:
    """The record of a part whose files all exist with the right sizes, or None: then the part is made again. `there`: what a
    bucket has (`sizes_there`)."""
    try:
        if not is_listed(Path(task.directory, f"{task.key}.json"), there):
            return None
        body = _content(Path(task.directory), task.key)
        if body["version"] != STAGE_VERSION:
            return None
        record = _record_of(body)
        files = [part for output in record.outputs for part in output.files]
        intact = store.all_there(Path(task.directory), files, there)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if intact and record.key == task.key else None


def record_damage(tokens: store.Artefact) -> tuple[int, list[str]]:
    """(files checked, problems found) for the records of an artefact's parts. A run that finds one damaged makes its part
    again."""
    folder = tokens.directory.parent / PARTS
    keys = sorted({Path(part.name).name.partition("-")[0] for part in tokens.manifest.parts})
    damage = []
    for key in keys:
        try:
            if _content(folder, key)["key"] != key:
                raise ValueError("the record of another part")
        except FileNotFoundError:
            damage.append(f"{folder / key}.json: missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage.append(told_of_file(error, folder / f"{key}.json"))
    return len(keys), damage


def _content(folder: Path, key: str) -> dict[str, Any]:
    """The record of a part as it was written, without its checksum; raises OSError, and ValueError for any other bytes."""
    path = store.fetched(folder / f"{key}.json")
    return unsealed(read_inside(path.parent, path.name))


def _record_of(body: dict[str, Any]) -> PartRecord:
    outputs = tuple(
        Output(*(store.Part(**output[name]) for name in ("tokens", "sentences", "words"))) for output in body.pop("outputs")
    )
    return PartRecord(outputs=outputs, dropped_samples=tuple(body.pop("dropped_samples")), **body)


# ── one part ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def tokenize_parts(tasks: tuple[TokenizeTask, ...], state: WorkerState) -> list[PartRecord]:
    return [tokenize_part(task, state.of(KeptStreams)) for task in tasks]


def tokenize_part(task: TokenizeTask, kept: KeptStreams) -> PartRecord:
    """Writes one part's files, its record last; the same bytes wherever and however often it runs. The sentences stay in memory
    within KEPT_BYTES, because their shard is drawn next, often by the same worker."""
    tokenizer = load_tokenizer(task.config)
    counts = ReadCounts()
    chunks = read_part(task.part, task.reading, counts)
    outputs: list[Output] = []
    dropped: list[bytes] = []
    scripts: Counter[str] = Counter()
    while (first := next(chunks, None)) is not None:
        output, table = _write_output(task, len(outputs), itertools.chain([first], chunks), counts, tokenizer, kept)
        outputs.append(output)
        dropped += table.dropped_samples
        if task.config.tokenizer == "simple":
            scripts.update(unspaced_scripts(*table.words()))
    # Runs that were too long to be held as one token never reached the table.
    dropped = [*dropped, *counts.overlong_samples][:_DROPPED_SHOWN]
    record = PartRecord(
        key=task.key,
        outputs=tuple(outputs),
        stored_bytes=counts.stored_bytes,
        tokens=sum(output.tokens.tokens for output in outputs),
        sentences=sum(output.sentences.rows for output in outputs),
        dropped_samples=tuple(printable(sample.decode("utf-8", "replace"), 60) for sample in dropped),
        sizes={str(place): dict(sorted(counter.items())) for place, counter in sorted(counts.sizes.items())},
        things={str(place): dict(sorted(counter.items())) for place, counter in sorted(counts.things.items())},
        examples={str(place): example for place, example in sorted(counts.examples.items())},
        text_sha256={str(place): digest for place, digest in sorted(counts.text_sha256.items())},
        scripts=dict(sorted(scripts.items())),
        remarks=dict(sorted(counts.remarks.items())),
    )
    store.write_json(Path(task.directory) / f"{task.key}.json", sealed(asdict(record)))
    return record


def _write_output(
    task: TokenizeTask, number: int, chunks: Iterator[Chunk], counts: ReadCounts, tokenizer: Tokenizer, kept: KeptStreams
) -> tuple[Output, WordTable]:
    """One triple of files with as many chunks as it takes, and the table of its words."""
    import pyarrow as pa

    from w2v_core.text.words import WordTable

    table = WordTable(task.config.max_token_bytes)
    files = TokenFiles(Path(task.directory) / f"{task.key}-{number:03d}")
    lengths: list[NDArray[np.int32]] = []
    written: list[NDArray[np.int32]] = []

    def write(file: Any) -> None:
        with store.parquet_writer(file, pa.schema([("token", pa.int32())]), **_IDS_LAYOUT) as writer:
            group: list[NDArray[np.int32]] = []
            text_bytes = held = 0
            for chunk in chunks:
                ids_N, ends_S = _encode(chunk, task.config.end_of_line, tokenizer, table, counts)
                group.append(ids_N)
                held += len(ids_N)
                lengths.append(np.diff(ends_S, prepend=0).astype(np.int32))
                if held >= _GROUP_TOKENS:
                    written.append(_write_group(writer, group))
                    held = 0
                text_bytes += len(chunk.text)
                if text_bytes >= task.output_bytes:
                    break
            written.append(_write_group(writer, group))

    tokens = store.write_file(files.tokens, write)
    length_S = np.concatenate(lengths)
    if task.config.end_of_line is not None:
        length_S = length_S.sum(keepdims=True, dtype=np.int64)
    token_count = int(length_S.sum(dtype=np.int64))
    tokens = store.Part(**(asdict(tokens) | {"rows": token_count, "tokens": token_count}))
    length_S = length_S[length_S > 0].astype(np.int32)
    sentences = store.write_table(files.sentences, pa.table({"length": column(length_S)}), **_IDS_LAYOUT)
    kept.keep_sentences(files.tokens.name, (_read_only(written), np.cumsum(length_S, dtype=np.int64)))
    counted = pa.table({"word": word_array(table), "count": column(table.words()[2])})
    words = store.write_table(files.words, counted, **_WORDS_LAYOUT)
    return Output(tokens, sentences, words), table


def _encode(
    chunk: Chunk, end_of_line: str | None, tokenizer: Tokenizer, table: WordTable, counts: ReadCounts
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(ids, sentence ends) of a chunk's words; counts what became of its bytes."""
    dropped, dropped_bytes = table.dropped, table.dropped_bytes
    # With line ends as words, windows cross them, and every line is part of a sentence.
    text = chunk.text if end_of_line is None else chunk.text.replace(b"\n", f" {end_of_line} ".encode())
    ids_N, ends_S, lines_S = tokenizer.encode(text, table)
    if end_of_line is not None:
        lines_S = np.arange(chunk.text.count(b"\n") + (not chunk.text.endswith(b"\n")))
    book_chunk(counts, chunk.place, chunk.text, lines_S, table.dropped - dropped, table.dropped_bytes - dropped_bytes)
    return ids_N, ends_S


def _write_group(writer: Any, group: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Writes the content of `group` as one row group, empties `group`, and returns what was written."""
    import pyarrow as pa

    ids_N = np.concatenate(group) if group else np.empty(0, np.int32)
    if group:
        writer.write_table(pa.table({"token": column(ids_N)}), row_group_size=2 * _GROUP_TOKENS)
        group.clear()
    return ids_N


def _read_only(groups: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """All ids as a read-only array, like those mapped from a file, because Numba compiles separate code for writable arrays."""
    filled = [ids_N for ids_N in groups if len(ids_N)]
    ids_N = filled[0] if len(filled) == 1 else np.concatenate([np.empty(0, np.int32), *filled])
    ids_N.flags.writeable = False
    return ids_N


_IDS_LAYOUT: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
_WORDS_LAYOUT: dict[str, Any] = {"use_dictionary": False}
