"""Texts that tests write into files, and what a run reads there."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Corpus
from pipeline.text.corpus import plan_corpus
from pipeline.text.cutting import cut_parts
from pipeline.text.losses import ReadCounts
from pipeline.text.reading import Reading, read_part


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(*paths: Path, block_bytes: int = 1 << 20, look_bytes: int = 1 << 20, **options: object) -> tuple[bytes, ReadCounts]:
    """The text of a corpus, and what was counted while reading it."""
    corpus = Corpus(inputs=[str(path) for path in paths], **options)  # type: ignore[arg-type]
    corpus = corpus.model_copy(update={"block_bytes": block_bytes})  # smaller than anyone may choose
    strict, stop = corpus.encoding_errors == "strict", corpus.bad_records == "stop"
    reading = Reading(
        corpus.format, corpus.text_field, strict, corpus.max_ratio, look_bytes, corpus.encoding, stop, sniff=corpus.sniff
    )
    counts = ReadCounts()
    text = b""
    for part in cut_parts(plan_corpus(corpus), block_bytes):
        text += b"\n".join(chunk.text for chunk in read_part(part, reading, counts)) + b"\n"
    return text, counts
