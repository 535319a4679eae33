"""tokens/ → vocab/: the words, their counts, and the probabilities with which each is kept and drawn as noise.

Every part of tokens/ comes with its own word counts, so nothing is counted again here: the counts are summed (exact int64) in a
tree of small merges, then sorted. A word's id is its rank by descending count, ties broken by the word's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline import store
from pipeline.cluster.workers import Workers
from pipeline.config import RunConfig
from pipeline.errors import DataError, printable
from pipeline.stages.work import Done, Identity, Told, Work
from pipeline.stream.part_files import column, word_parts
from w2v_core.sampler import noise_distribution, noise_table
from w2v_core.windows import default_sample, keep_probability

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "vocab"
STAGE_VERSION = 2
MERGE_WIDTH = 16
"""How many files of counts one task merges: 4,096 parts need three levels of tasks."""
MERGED_BY_DRIVER = 8
"""Up to this many files of counts, as small corpora have, the driver merges itself, without a task and its file."""
WORDS = "vocab.parquet"
NOISE_TABLE = "noise_table.npy"


def identity(config: RunConfig, tokens: store.Artefact) -> Identity:
    """(fingerprint, fields read, inputs) of the vocabulary for these tokens and settings."""
    fields = config.vocab.model_dump() | {"sample": chosen_sample(config, tokens)}
    inputs = (tokens.fingerprint,)
    return store.fingerprint(STAGE, STAGE_VERSION, fields, inputs), fields, inputs


def chosen_sample(config: RunConfig, tokens: store.Artefact) -> float:
    """The subsampling threshold, as configured or by the corpus's size."""
    given = config.shards.sample
    return default_sample(int(tokens.manifest.totals["tokens"])) if given is None else given


def build(work: Work, tokens: store.Artefact) -> store.Artefact:
    """The committed vocabulary; raises DataError if fewer than two words are frequent enough."""
    config, workdir = work.config, work.workdir
    fingerprint, fields, inputs = identity(config, tokens)
    directory = store.artefact_directory(workdir, STAGE, fingerprint)
    paths = tuple(str(tokens.directory / part.name) for part in word_parts(tokens))
    counted = _merged(_merge_tree(paths, directory / "merge", work.workers))
    kept = select_words(counted, config.vocab.min_count, config.vocab.max_size)
    counts_V = store.numbers(kept["count"]).astype(np.int64)
    parts = (
        store.write_table(directory / WORDS, _with_probabilities(kept, counts_V, config, chosen_sample(config, tokens))),
        store.write_array(directory / NOISE_TABLE, noise_table(counts_V, config.vocab.ns_exponent)),
    )
    totals = {
        "size": len(counts_V),
        "tokens": int(counts_V.sum()),
        "corpus_tokens": tokens.manifest.totals["tokens"],
        "distinct_words": counted.num_rows,
    }
    artefact = store.commit(
        workdir,
        store.Manifest(stage=STAGE, fingerprint=fingerprint, parts=parts, totals=totals, fields=fields, inputs=inputs),
    )
    store.discard(directory / "merge")
    return artefact


def describe(done: Done) -> Told:
    totals = done.totals
    line = f"{totals['size']:,} words of {totals['distinct_words']:,}"
    return Told(line, tokens=totals["corpus_tokens"], sections={"vocab": dict(totals)})


@dataclass(frozen=True)
class _Merge:
    """A task: sums the word counts in `sources` into `target`."""

    sources: tuple[str, ...]
    target: str


def merge_counts(task: _Merge) -> str:
    """The path of a table (word, count) with each word of the sources once, counts summed."""
    store.write_table(Path(task.target), _merged(task.sources))
    return task.target


def _merged(sources: Sequence[str]) -> pa.Table:
    """Each word of these tables once, with the sum of its counts. `Table.group_by` would import pyarrow.dataset and with it
    pandas, which takes longer than summing the counts of a small corpus."""
    import pyarrow as pa

    counted = pa.concat_tables([store.read_table(Path(source), columns=("word", "count")) for source in sources])
    encoded = counted["word"].combine_chunks().dictionary_encode()
    sums = np.zeros(len(encoded.dictionary), dtype=np.int64)
    np.add.at(sums, store.numbers(encoded.indices), store.numbers(counted["count"]))
    return pa.table({"word": encoded.dictionary, "count": column(sums)})


def _merge_tree(paths: tuple[str, ...], scratch: Path, workers: Workers) -> tuple[str, ...]:
    """The paths of at most MERGED_BY_DRIVER tables, which together have all counts."""
    level = 0
    while len(paths) > MERGED_BY_DRIVER:
        groups = [paths[first : first + MERGE_WIDTH] for first in range(0, len(paths), MERGE_WIDTH)]
        tasks = [_Merge(group, str(scratch / f"counts-{level}-{index:05d}.parquet")) for index, group in enumerate(groups)]
        paths = tuple(workers.map(merge_counts, tasks, label="count"))
        level += 1
    return paths


def select_words(counted: pa.Table, min_count: int, max_size: int | None) -> pa.Table:
    """The rows (word, count) of the vocabulary, in id order; raises DataError if there are fewer than two."""
    import pyarrow.compute as pc

    frequent = counted.take(column(np.flatnonzero(store.numbers(counted["count"]) >= min_count)))
    if frequent.num_rows < 2:
        raise _too_few_words(counted, frequent.num_rows, min_count)
    ranked = frequent.take(pc.sort_indices(frequent, sort_keys=[("count", "descending"), ("word", "ascending")]))
    return ranked if max_size is None else ranked.slice(0, max_size)


def _too_few_words(counted: pa.Table, found: int, min_count: int) -> DataError:
    top = counted.sort_by([("count", "descending"), ("word", "ascending")]).slice(0, 5).to_pylist()
    shown = ", ".join(f"{printable(row['word'], 30)} ({row['count']:,})" for row in top)
    if len(top) < 2:
        return DataError(
            f"vocab: a vocabulary needs at least 2 words, the corpus has {len(top)}: {shown or 'none'}; "
            "training contrasts a word with others, so give a corpus with more than one word"
        )
    return DataError(
        f"vocab: {'no word reaches' if found == 0 else 'only 1 word reaches'} vocab.min_count={min_count}, "
        f"and at least 2 are needed; the largest usable value here is {top[1]['count']:,}. Most frequent: {shown}"
    )


def _with_probabilities(kept: pa.Table, counts_V: np.ndarray, config: RunConfig, sample: float) -> pa.Table:
    import pyarrow as pa

    if len(counts_V) >= 2**31:
        raise DataError(f"vocab: {len(counts_V):,} words do not fit 32-bit word ids; raise vocab.min_count or set vocab.max_size")
    return pa.table(
        {
            "word_id": column(np.arange(len(counts_V), dtype=np.int32)),
            "word": kept["word"],
            "count": column(counts_V),
            "keep_probability": column(keep_probability(counts_V, sample)),
            "noise_probability": column(noise_distribution(counts_V, config.vocab.ns_exponent)),
        }
    )


def read_words(vocab: store.Artefact) -> pa.Table:
    """The vocabulary table in id order, with its page checksums verified."""
    return store.read_table(vocab.path(WORDS))
