"""A sample from all over a corpus, as files that the pipeline reads just like the corpus.

From plain files it takes evenly spaced stretches of whole lines, from compressed files the beginnings of some; archives and
tables are taken whole. Nothing is hashed, and large files are not read to their ends, so a corpus of any size costs the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Corpus, Storage
from pipeline.errors import InputError
from pipeline.storage.addresses import is_address
from pipeline.text.decompress import decompress
from pipeline.text.inputs import PYDOCS, Filter, Search, find_files
from pipeline.text.object_inputs import find_objects
from pipeline.text.recognise import kind_of
from pipeline.text.sources import open_source, stand_of

SAMPLE_BYTES = 16 << 20
STRETCHES = 256
"""Number of stretches: many short ones, because words come in bursts, so a long stretch represents the rest less well."""
RATIO_BYTES = 4 << 20
"""Stored bytes from which the compression ratio is estimated."""
DEFAULT_STORAGE = Storage()
_STREAMS = ("gzip", "zstd", "bz2", "xz", "lz4", "lzma")


@dataclass(frozen=True)
class Sample:
    inputs: tuple[str, ...]
    """Inputs to read in place of the corpus's."""
    stored_bytes: int
    """Stored bytes of the corpus that are in the sample."""
    corpus_bytes: int
    files: int

    @property
    def is_whole(self) -> bool:
        """Whether it is the corpus itself, with all its errors, and not lines cut out of it."""
        return self.stored_bytes == self.corpus_bytes

    @property
    def times(self) -> float:
        """How many times as large as the sample the corpus is."""
        return self.corpus_bytes / max(1, self.stored_bytes)


def take_sample(
    corpus: Corpus, folder: Path, forbidden: Path, budget: int = SAMPLE_BYTES, storage: Storage = DEFAULT_STORAGE
) -> Sample:
    """The sample, written into `folder`. Raises InputError for an empty corpus."""
    if PYDOCS in corpus.inputs:
        from pipeline.text.pydocs import source_files

        python = sum(os.path.getsize(path) for path in source_files())
        return Sample(tuple(corpus.inputs), python, python, len(source_files()))
    search = Search(corpus.follow_symlinks, Filter(tuple(corpus.include), tuple(corpus.exclude)))
    paths = [path for pattern in corpus.inputs for path in _find(pattern, search, forbidden, storage)]
    sizes = [_size_of(path, storage) for path in paths]
    total = sum(sizes)
    if not total:
        raise InputError("corpus.inputs: no text to plan with; check the paths")
    if total <= budget:
        return Sample(tuple(paths), total, total, len(paths))
    stretch, begin, taken = budget // STRETCHES, 0, 0
    places = [total * (2 * number + 1) // (2 * STRETCHES) for number in range(STRETCHES)]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        here = [max(0, min(place - begin, size - stretch)) for place in places if begin <= place < begin + size]
        begin += size
        kind = kind_of(path, corpus)
        if not here:
            continue
        # A name may already have the maximum length; its end tells the kind of the file.
        target = folder / f"{number:07d}-{os.fsdecode(os.fsencode(Path(path).name)[-100:])}"
        if kind == "plain":
            # A table needs its first line, which names the columns, and in some encodings a newline is more than one byte.
            whole = corpus.format in ("csv", "tsv") or "16" in corpus.encoding or "32" in corpus.encoding
            length = stretch * (len(here) if whole else 1)
            taken += _take_stretches(path, target, [0] if whole else here, length, storage)
        elif kind in _STREAMS:
            text = target.with_name(target.stem.split(".")[0] + ".txt")
            taken += _take_beginning(path, kind, text, stretch * len(here), corpus, storage)
        elif not taken or size <= budget:
            with open_source(path, storage) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out)
            taken += size
    return Sample((str(folder),), taken, total, len(paths))


def _find(pattern: str, search: Search, forbidden: Path, storage: Storage) -> Iterable[str]:
    return find_objects(pattern, search, storage, None) if is_address(pattern) else find_files(pattern, search, forbidden)


def _size_of(path: str, storage: Storage) -> int:
    if not is_address(path):
        return os.path.getsize(path)
    with open_source(path, storage) as file:
        return stand_of(file).size


def _take_stretches(path: str, target: Path, places: list[int], stretch: int, storage: Storage) -> int:
    """The number of bytes written: whole lines of about `stretch` bytes from each place on."""
    written = read = 0
    with open_source(path, storage) as source, target.open("wb") as out:
        for place in places:
            if place < read:
                place = read
            source.seek(place)
            piece = source.read(stretch)
            begin = piece.find(b"\n") + 1 if place > read else 0
            end = piece.rfind(b"\n") + 1 or len(piece)
            written += out.write(piece[begin:end] if end > begin else piece)
            read = place + len(piece)
    return written


def _take_beginning(path: str, kind: str, target: Path, wanted: int, corpus: Corpus, storage: Storage) -> int:
    """The number of stored bytes that the written text corresponds to: whole lines, about `wanted` bytes of text."""
    written = unpacked = 0
    size = _size_of(path, storage)
    with open_source(path, storage) as source, target.open("wb") as out:
        for block in decompress(source, kind, path=path, size=size, max_ratio=corpus.max_ratio):
            unpacked += len(block)
            if written < wanted:
                piece = block[: wanted - written]
                end = len(piece) if len(piece) == len(block) else piece.rfind(b"\n") + 1
                written += out.write(piece[:end])
                wanted = written if end < len(block) else wanted
            # The ratio is estimated over more than was taken, because stored bytes are read in blocks.
            elif source.tell() >= RATIO_BYTES:
                break
        return round(written / max(1, unpacked) * min(source.tell(), size))
