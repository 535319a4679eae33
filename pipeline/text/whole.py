"""A tokenized corpus as a whole: its totals and the notes for its user, from the records of its parts.

Losses beyond `corpus.max_lost` stop the run here, before the tokens are committed.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import DataError, PipelineError, counted, printable
from pipeline.text import losses
from pipeline.text.encodings import UTF8, fitting_encoding, invalid_share
from pipeline.text.inputs import Filter
from pipeline.text.losses import FileLosses
from pipeline.text.pieces import CorpusPlan, TextPart
from pipeline.text.reading import Reading, heads
from pipeline.text.signatures import ENTITIES

_OF_ENTITIES = ENTITIES.partition(" ")[2]
_SAMPLES_SHOWN = 3
_MUCH = 0.001
_RECORDS = ("parquet", "arrow", "python")
"""Kinds of files whose text is not a stretch of their bytes."""
_UNSPACED_SHARE = 0.05
"""A script written without spaces gets a note from this share of the words on."""


def whole_corpus(config: RunConfig, plan: CorpusPlan, parts: Sequence[tuple[TextPart, Any]]) -> dict[str, Any]:
    """The manifest's entries on the corpus; raises DataError when it has no tokens or too much of it is lost.

    `parts` holds every part with its record (`stages.tokenize.PartRecord`).
    """
    files = {file.path: FileLosses() for file in plan.files}
    for part, record in parts:
        for place, piece in enumerate(part.pieces):
            key = str(place)
            found = files[piece.file.path]
            found.add(record.sizes.get(key, {}), record.things.get(key, {}), record.examples.get(key, ""))
    corpus = config.corpus
    _refuse_bad_records(files, corpus.bad_records)
    losses.refuse(files, corpus.max_lost, corpus.encoding, fitting_encodings(plan, files, config))
    records = [record for _, record in parts]
    tokens = sum(record.tokens for record in records)
    if not tokens:
        raise DataError(_no_token(plan, files))
    whole = FileLosses()
    for found in files.values():
        whole.add(found.bytes, found.things)
    samples = [sample for record in records for sample in record.dropped_samples][:_SAMPLES_SHOWN]
    notes = [
        *losses.notes(files, corpus.encoding, samples),
        *_equal_texts(parts),
        *_unspaced(records, tokens),
        *_remarks(records),
    ]
    return {
        "tokens": tokens,
        "sentences": sum(record.sentences for record in records),
        "files": len(plan.files),
        "bytes_read": sum(record.stored_bytes for record in records),
        "text_bytes": whole.text,
        "empty_files": sum(not found.bytes[losses.READ] for found in files.values()),
        "invalid_utf8": whole.things[losses.NOT_TEXT],
        "dropped_long_tokens": whole.things[losses.LONG_TOKENS],
        "dropped_samples": samples,
        "bytes": losses.as_json(whole),
        "records": whole.things[losses.RECORDS],
        "bad_records": whole.things[losses.BAD_RECORDS],
        "notes": [note for note in (*plan.notes, *notes) if not (config.tokenize.entities and _OF_ENTITIES in note)],
    }


def _no_token(plan: CorpusPlan, files: Mapping[str, FileLosses]) -> str:
    skipped = next((f" ({found.example})" for found in files.values() if found.example), "")
    found = f"corpus: not one token in {counted(len(plan.files), 'files|file')} ({plan.bytes:,} bytes); first: "
    first = f"{printable(plan.files[0].path, 200)}{skipped}"
    if not any(losses_of.bytes[losses.READ] for losses_of in files.values()):
        return f"{found}{first}. There is no text in them: they are empty, or hold nothing that is read; check corpus.inputs"
    return f"{found}{first}. Check corpus.format, corpus.text_field and tokenize.tokenizer"


def _refuse_bad_records(files: Mapping[str, FileLosses], bad_records: str) -> None:
    """Raises DataError for records without text that an earlier run, with other settings, was allowed to skip."""
    path = next((path for path in files if files[path].things[losses.BAD_RECORDS]), None)
    if path and bad_records == "stop":
        raise DataError(f"{printable(path, 300)}: {files[path].example}; correct the file, or set corpus.bad_records: skip")


def fitting_encodings(plan: CorpusPlan, files: Mapping[str, FileLosses], config: RunConfig) -> dict[str, str]:
    """{path: encoding that fits its first bytes, or those of a member} for the worst of the files with many invalid bytes."""
    corpus = config.corpus
    of_bytes = [file for file in plan.files if file.kind not in _RECORDS and files[file.path].share > _MUCH]
    worst = sorted(of_bytes, key=lambda file: -files[file.path].bytes[losses.NOT_TEXT])[: losses.WORST_SHOWN]
    reading = Reading(
        max_ratio=corpus.max_ratio,
        chosen=Filter(tuple(corpus.include), tuple(corpus.exclude)),
        sniff=False,
        storage=config.storage,
    )
    found = {}
    for file in worst if corpus.encoding == UTF8 else ():
        # It was read a moment ago; if it is gone by now, there is no hint.
        with contextlib.suppress(OSError, PipelineError):
            foreign = next((head for head in heads(file, reading) if invalid_share(head) > _MUCH), b"")
            if guess := fitting_encoding(foreign):
                found[file.path] = guess
    return found


def _equal_texts(parts: Sequence[tuple[TextPart, Any]]) -> Iterator[str]:
    """A note when a compressed file has the same text as another file."""
    paths: dict[str, dict[str, None]] = defaultdict(dict)
    for part, record in parts:
        for place, piece in enumerate(part.pieces):
            digest = record.text_sha256.get(str(place)) or (piece.file.sha256 if piece.file.kind == "plain" else None)
            if digest and piece.file.size:
                paths[digest][piece.file.path] = None
    copies = [list(equal) for equal in paths.values() if len(equal) > 1]
    # Files whose stored bytes are equal were noted when the corpus was planned.
    copies = [equal for equal in copies if len({path.rsplit(".", 1)[-1] for path in equal}) > 1]
    if copies:
        told = counted(len(copies), "texts|text are|is there twice, plain or compressed, and count|counts again")
        yield (f"{told}: {printable(copies[0][0], 200)} and {printable(copies[0][1], 200)}")


def _unspaced(records: Sequence[Any], tokens: int) -> Iterator[str]:
    scripts: Counter[str] = Counter()
    for record in records:
        scripts.update(record.scripts)
    for script, count in scripts.most_common():
        if count >= _UNSPACED_SHARE * tokens:
            yield (
                f"{losses.percent(count / tokens)} of the words ({count:,}) are single letters of {script} text, which is "
                "written without spaces: a segmenter finds its words (tokenize.tokenizer: "
                "pipeline.text.segmenters:icu, the extra icu)"
            )


def _remarks(records: Sequence[Any]) -> Iterator[str]:
    remarks: Counter[str] = Counter()
    for record in records:
        remarks.update(record.remarks)
    yield from (counted(count, remark) for remark, count in sorted(remarks.items()))
