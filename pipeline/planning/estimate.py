"""`w2v plan`: what a run of this configuration would take, from a sample of its corpus and the speeds of this machine.

    sample      about 16 MB from all over the corpus, run through the real stages up to shards/ in a temporary folder
    growth      the number of words in the whole corpus
    speeds      the constants of the model, measured here
    forecast    time, memory, disk and traffic on one host and on several

The workdir is only read: the figures of the last run there are shown beside the model's figures for this machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import store
from pipeline.cluster.before_start import refuse_without_gpu
from pipeline.cluster.local import refuse_odd_settings
from pipeline.cluster.room import free_memory, resident_bytes
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig
from pipeline.errors import ServiceError
from pipeline.exchange.host import usable_cores
from pipeline.planning import speeds as measured
from pipeline.planning.forecast import Forecast, Speeds, Text, forecast, lanes_on
from pipeline.planning.growth import Growth, vocabulary_counts
from pipeline.planning.merges import Machines
from pipeline.planning.merging import connection_with_itself, encrypted, measure_merging
from pipeline.planning.sample import Sample, take_sample
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.stages import vocab as vocabulary
from pipeline.stages.preloading import COMPILING, telling
from pipeline.stream.epoch_stream import MappedShards
from pipeline.training.capacity import TrainingSizes
from pipeline.training.placement import MOST_STRIPS
from pipeline.training.plan import choose_lanes
from w2v_core.kernels import padded_size
from w2v_core.windows import default_sample

START_S = 0.75
"""Fixed time of every run: imports, the report, the last files (infra/benchmarks/records/plan-2026-11-29.md)."""
HASH_S = 0.7e-9
"""Time per byte of the corpus to read and hash it before any work."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The user's assumptions; None means as on this machine, or as estimated."""

    tokens: float | None = None
    """Tokens of the corpus, instead of the estimate."""
    words: int | None = None
    hosts: tuple[int, ...] = (1, 2, 4, 8, 16)
    cores: int | None = None
    """Per host."""
    memory_bytes: int | None = None
    """Per host."""
    disk_bytes: int | None = None
    gbit_s: float = 10.0
    round_trip_s: float = 1e-4
    price: float | None = None
    """Per host and hour."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    config: RunConfig
    sample: Sample
    text: Text
    speeds: Speeds
    here: Forecast
    """On this machine alone."""
    there: tuple[Forecast, ...]
    """On each of the requested numbers of hosts that can all train."""
    asked: Asked
    memory_bytes: int | None
    """Memory of a host; None if not known."""
    disk_bytes: int
    """Free disk space for the workdir."""
    unknown: tuple[str, ...]
    """What this machine cannot tell."""


def make_plan(config: RunConfig, asked: Asked, say: Callable[[str], None] = lambda text: None) -> Plan:
    """The plan of a run, which takes several seconds; `say` is called with each step. Raises the errors that a run raises about
    its corpus."""
    refuse_odd_settings()  # merges between hosts are timed over Dask's connections
    compiled: list[str] = []

    def on_compiling() -> None:
        compiled.append(COMPILING)
        say(COMPILING)

    with tempfile.TemporaryDirectory(prefix="w2v-plan-") as folder, telling(on_compiling):
        say("taking a sample of the corpus")
        sample = take_sample(config.corpus, _made(folder, "text"), config.workdir, storage=config.storage)
        say(f"tokenizing and counting it ({sample.stored_bytes / 1e6:,.0f} of {sample.corpus_bytes / 1e6:,.0f} MB)")
        whole = asked.tokens or 0.0
        first, summary = _run_sample(config, sample, Path(folder), whole, compiled)
        text, growth = _text(config, asked, sample, summary, Path(folder, "work"))
        say("timing training and merges")
        counts = vocabulary_counts(growth.counts, text.tokens, min(text.words, measured.most_words(config.train)))
        unknown, timed = _without_gpu(config)
        speeds = _speeds(timed, first, summary, text, counts, Path(folder))
    cores = asked.cores or usable_cores()
    sizes = _sizes(config, text)
    row_floats = padded_size(config.train.vector_size)

    def on(hosts: int, cores: int) -> Forecast:
        machines = Machines(hosts=hosts, cores=cores, gbit_s=asked.gbit_s, round_trip_s=asked.round_trip_s)
        return forecast(text, config.train, row_floats, machines, speeds, sizes)

    # Hosts for which there is no copy of the parameters would not train.
    hosts = sorted({min(asked_hosts, lanes_on(asked_hosts, config.train, text).copies) for asked_hosts in asked.hosts})
    place = next(parent for parent in (config.workdir, *config.workdir.parents) if parent.exists())
    return Plan(
        config=config, sample=sample, text=text, speeds=speeds, here=on(1, usable_cores()),
        there=tuple(on(each, cores) for each in hosts), asked=asked, unknown=unknown,
        memory_bytes=free_memory() if asked.memory_bytes is None else asked.memory_bytes,
        disk_bytes=shutil.disk_usage(place).free if asked.disk_bytes is None else asked.disk_bytes,
    )  # fmt: skip


def _without_gpu(config: RunConfig) -> tuple[tuple[str, ...], RunConfig]:
    """(what a machine without a GPU cannot tell of a run on one, the configuration that can be timed here)."""
    if config.train.backend != "cupy":
        return (), config
    try:
        refuse_without_gpu()
    except ServiceError as error:
        unknown = (
            "the time of training on a GPU: it is that of one processor core here. Run this command on a machine with the GPU "
            f"({error})",
            "whether the parameters fit into the GPU's memory",
        )
        return unknown, config.model_copy(update={"train": config.train.model_copy(update={"backend": "auto"})})
    return ("whether the parameters fit into the GPU's memory",), config


def is_encrypted(config: RunConfig) -> bool:
    """Whether connections between workers on several hosts would use TLS."""
    return config.cluster.tls is not None or config.cluster.kind != "address"


def _made(*names: str) -> Path:
    path = Path(*names)
    path.mkdir()
    return path


def _run_sample(
    config: RunConfig, sample: Sample, folder: Path, tokens: float, compiled: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summaries of two runs up to shards: of a few words, to load everything, and of the sample. If code was `compiled` in
    the first, which happens once on a machine, it is repeated."""
    warm = _made(str(folder), "warm")
    (warm / "few.txt").write_text("some words to begin with\nand some words more\n" * 50, encoding="utf-8")
    workers = InProcess(usable_cores())

    def go(workdir: str, corpus: dict[str, Any], until: str, threshold: float) -> dict[str, Any]:
        changed = {
            "run": config.run.model_copy(update={"workdir": str(folder / workdir)}),
            "corpus": config.corpus.model_copy(update=corpus),
            # Keep all words: how many of them will be frequent enough depends on the size of the whole corpus.
            "vocab": config.vocab.model_copy(update={"min_count": 1, "max_size": None}),
            "shards": config.shards.model_copy(update={"sample": threshold}),
            "tracking": config.tracking.model_copy(update={"enabled": False}),
        }
        return run(config.model_copy(update=changed), until=until, workers=workers, progress=Progress(quiet=True))

    few = {"inputs": [str(warm)], "format": "lines"}
    first = go("warm-work", few, "shards", 1.0)
    if compiled:
        first = go("warm-again", few, "shards", 1.0)
    # What was cut out of the middle of a corpus begins and ends in the middle of records.
    lenient: dict[str, Any] = {} if sample.is_whole else {"bad_records": "skip", "max_lost": 1.0}
    inputs = {"inputs": list(sample.inputs)} | lenient
    tokenized = go("work", inputs, "tokenize", 1.0)
    whole = tokens or tokenized["corpus"]["tokens"] * sample.times
    threshold = default_sample(round(whole)) if config.shards.sample is None else config.shards.sample
    summary = go("work", inputs, "shards", threshold)
    summary["stages"]["tokenize"] = tokenized["stages"]["tokenize"]
    return first, summary


def _text(config: RunConfig, asked: Asked, sample: Sample, summary: dict[str, Any], workdir: Path) -> tuple[Text, Growth]:
    """The whole corpus, extrapolated from the sample, and the growth of its vocabulary."""
    found = {stage: _artefact(workdir, kind, summary["stages"][stage]["fingerprint"])
             for stage, kind in (("tokenize", "tokens"), ("vocab", "vocab"), ("shards", "shards"))}  # fmt: skip
    sizes = {stage: sum(part.bytes for part in artefact.manifest.parts) for stage, artefact in found.items()}
    tokens, kept = summary["corpus"]["tokens"], summary["shards"]["kept_tokens"]
    counted = store.read_table(found["vocab"].path(vocabulary.WORDS), columns=["word", "count"])
    growth = Growth(np.asarray(store.numbers(counted["count"]), np.int64))
    whole = asked.tokens or tokens * sample.times
    least = config.vocab.min_count
    if sample.is_whole and not (asked.tokens or asked.words):
        vocabulary.select_words(counted, least, None)  # refuses what the run will refuse
    words = asked.words or round(growth.frequent_words(whole, least))
    if config.vocab.max_size and not asked.words:
        words = min(words, config.vocab.max_size)
    words_file = found["vocab"].part(vocabulary.WORDS).bytes
    text = Text(
        stored_bytes=sample.corpus_bytes,
        tokens=round(whole),
        sentences=round(summary["corpus"]["sentences"] * whole / tokens),
        words=max(2, words),
        distinct_words=round(max(words, growth.words(whole))),
        kept_tokens=max(1, round(whole * kept / tokens - growth.rare_tokens(whole, least))),
        token_bytes=sizes["tokenize"] / tokens,
        shard_bytes=sizes["shards"] / kept,
        word_bytes=words_file / growth.counts.size,
    )
    return text, growth


def _artefact(workdir: Path, kind: str, fingerprint: str) -> store.Artefact:
    found = store.open_artefact(workdir, kind, fingerprint)
    assert found is not None
    return found


def _speeds(
    config: RunConfig, first: dict[str, Any], summary: dict[str, Any], text: Text, counts: NDArray[np.int64], folder: Path
) -> Speeds:
    process_bytes = resident_bytes()
    stages, tokens = summary["stages"], summary["corpus"]["tokens"]
    begun = {name: row["seconds"] for name, row in first["stages"].items()}
    # About half of the time for a few words recurs with many (threads and files); the rest is loading, which happens once.
    seconds = {name: max(0.1 * row["seconds"], row["seconds"] - begun[name] / 2) for name, row in stages.items()}
    shards = _artefact(folder / "work", "shards", stages["shards"]["fingerprint"])
    train = choose_lanes(config.train, text.kept_tokens, text.words)
    cores = usable_cores()
    stream = measured.repeated(measured.first_stream(MappedShards(shards)), max(measured.LEAST_TOKENS, 2 * train.lanes))
    if train.engine == "layers":
        alone = measured.seconds_a_layered_token(config, stream, counts)
        together = alone / cores
    else:
        sample = default_sample(text.tokens) if config.shards.sample is None else config.shards.sample
        ground = measured.training_ground(config, train, stream, counts, sample)
        alone = measured.seconds_a_token(ground, 1)
        together = measured.seconds_a_token(ground, cores) if min(cores, train.lanes) > 1 else alone / cores
    connections = [connection_with_itself() for _ in range(min(MOST_STRIPS, cores))]
    if is_encrypted(config):
        connections = [encrypted(*ends) for ends in connections]
    merging = measure_merging(train.model_copy(update={"merge_bits": 8}), connections)
    return Speeds(
        cores=cores,
        tokenize_s=seconds["tokenize"] / tokens,
        count_s=seconds["vocab"] / summary["vocab"]["distinct_words"],
        draw_s=seconds["shards"] / tokens,
        train_s=alone,
        # On a busy machine threads are delayed at every wave; training then uses fewer.
        threads_kept=min(1.0, max(1 / cores, alone / (cores * together))),
        merging=replace(merging, send_s=merging.send_s + measured.DEVICE_S),
        write_s=measured.seconds_a_written_byte(folder),
        start_s=START_S + HASH_S * text.stored_bytes + sum(begun.values()),
        process_bytes=process_bytes,
    )


def _sizes(config: RunConfig, text: Text) -> TrainingSizes:
    train = config.train
    return TrainingSizes(
        vocab_size=text.words, vector_size=train.vector_size, row_floats=padded_size(train.vector_size), lanes=1, copies=1,
        lane_tokens=text.kept_tokens, epoch_tokens=text.kept_tokens, epochs=train.epochs, window=config.shards.window,
        noise_bytes=8 * text.words, sentence_bytes=4 * text.tokens + 8 * text.sentences,
        analogy_words=config.evaluate.restrict_vocab if config.evaluate.analogies else 0,
        layers=train.engine == "layers", moments=2 if train.optimizer == "adam" else 0,
    )  # fmt: skip


# ── the last run ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Figures of the last complete run in the workdir."""

    seconds: dict[str, float]
    """By stage, without stages that were reused."""
    disk_bytes: dict[str, int]
    memory_bytes: int | None
    tokens: int
    words: int
    kept_tokens: int
    hosts: int


def last_run(config: RunConfig) -> Taken | None:
    """The figures of the last run, None if there was none."""
    from pipeline.history.snapshot import SUMMARY
    from pipeline.safety.files import read_json_object

    try:
        found = read_json_object(config.workdir, SUMMARY)
        stages = found["stages"]
        disk = {}
        for stage, kind in (("tokenize", "tokens"), ("vocab", "vocab"), ("shards", "shards"), ("train", "vectors")):
            artefact = store.open_artefact(config.workdir, kind, stages[stage]["fingerprint"])
            disk[stage] = sum(part.bytes for part in artefact.manifest.parts) if artefact else 0
        return Taken(
            seconds={name: float(row["seconds"]) for name, row in stages.items() if not row["cached"]},
            disk_bytes=disk,
            memory_bytes=max((int(load["memory_bytes"]) for load in found.get("workers", ())), default=None),
            tokens=int(found["corpus"]["tokens"]),
            words=int(found["vocab"]["size"]),
            kept_tokens=int(found["shards"]["kept_tokens"]),
            hosts=int(found["train"]["memory"]["hosts"]),
        )
    except (OSError, LookupError, TypeError, ValueError):
        return None
