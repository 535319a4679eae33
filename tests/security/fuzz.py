"""`make fuzz`: seeded, time-boxed mutations of everything that is read. Nothing may end as a bug of this program, take above 20 s
or above 2 GiB, and no other answer than "read" or one of our errors may come back. The time is the processor's, so that a busy
machine tries as much as an idle one.

    python -m tests.security.fuzz [--seconds 120] [--seed 19] [KIND…]

A case is named by its kind, seed and number; `--only NUMBER` runs it again alone and shows where it failed.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import io
import json
import lzma
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, load_config, parse_config
from pipeline.errors import PipelineError
from pipeline.formats.exports import FORMATS, export_vectors
from pipeline.history.latest import find_answer
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.summary import SUMMARY, read_summary
from pipeline.tracking.delivery import batches
from pipeline.tracking.registry import CannotBeTaken, resolve
from pipeline.tracking.spool import Spool, Target, read_events, what_is_spooled
from pipeline.workdir import status_lines, verify_workdir
from tests.security.mutations import changed, damaged
from tests.tiny import tiny_config, write_corpus
from w2v_core.vectors import WordVectors

SECONDS_A_CASE, MEMORY_BYTES = 20, 2 << 30
ROOT = Path(__file__).parents[2]
UNTRACKED: dict[str, object] = {"enabled": False}

Case = Callable[[random.Random, Path], None]


@dataclass
class Bench:
    """What is damaged: made once, in a folder that every case gets a copy of the needed part of."""

    folder: Path
    workdir: Path
    configs: list[bytes] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)
    corpora: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """{file name: (corpus.format, bytes)}."""


def make_bench(folder: Path) -> Bench:
    inputs = write_corpus(folder / "corpus", 200)
    bench = Bench(folder, folder / "work")
    tree = tiny_config(bench.workdir, inputs, tracking=UNTRACKED)
    tree["train"] = {"lanes": 1, "epochs": 1, "vector_size": 4}
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    run(parse_config(tree), workers=InProcess(), progress=Progress(quiet=True))
    bench.configs = [path.read_bytes() for path in sorted((ROOT / "configs").glob("*.yaml"))]
    vectors = WordVectors(("the", "of", "naïve", "왕"), np.arange(16, dtype=np.float32).reshape(4, 4) / 7, np.arange(4, 0, -1))
    for paths in export_vectors(vectors, list(FORMATS), folder / "exports").values():
        bench.vectors |= {path.name: path.read_bytes() for path in paths}
    bench.corpora = dict(_corpora())
    return bench


def _corpora() -> Iterator[tuple[str, tuple[str, bytes]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"word{index % 7} naïve word{index % 5} 왕 emoji 🙂 end" for index in range(60)]
    lines = "\n".join(texts).encode()
    rows = "\n".join(json.dumps({"text": text, "id": index}) for index, text in enumerate(texts)).encode()
    table = pa.table({"text": texts, "id": list(range(60))})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet, row_group_size=20)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    yield from {
        "a.txt": ("lines", lines), "a.txt.gz": ("lines", gzip.compress(lines, mtime=0)),
        "a.txt.bz2": ("lines", bz2.compress(lines)),
        "a.txt.xz": ("lines", lzma.compress(lines)), "a.txt.zst": ("lines", pa.compress(lines, "zstd", asbytes=True)),
        "a.jsonl": ("jsonl", rows), "a.jsonl.gz": ("jsonl", gzip.compress(rows, mtime=0)),
        "a.csv": ("csv", b"id,text\n" + "\n".join(f'{i},"{t}"' for i, t in enumerate(texts)).encode()),
        "a.tsv": ("tsv", b"id\ttext\n" + "\n".join(f"{i}\t{t}" for i, t in enumerate(texts)).encode()),
        "a.parquet": ("parquet", parquet.getvalue()), "a.arrow": ("arrow", arrow.getvalue()),
    }.items()  # fmt: skip


# ── one function a kind: (random numbers, an empty folder) → nothing, or the error a person would see ────────────────


def _at(bench: Bench, workdir: Path) -> RunConfig:
    """The bench's configuration with another workdir."""
    config = load_config(bench.folder / "c.yaml")
    return config.model_copy(update={"run": config.run.model_copy(update={"workdir": str(workdir)})})


def _settings(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(load_config(bench.folder / "c.yaml").model_dump_json(by_alias=True))
    return found


def _manifest(bench: Bench, rng: random.Random) -> Path:
    """One of the bench's manifests, relative to the workdir."""
    return rng.choice(sorted(bench.workdir.glob(f"*/*/{store.MANIFEST}"))).relative_to(bench.workdir)


def _copied(bench: Bench, folder: Path) -> Path:
    shutil.copytree(bench.workdir, folder / "work", symlinks=True)
    return folder / "work"


def _as_written(body: Any) -> bytes:
    """A sealed body as `store.write_json` writes it."""
    sealed = store.sealed(body) if isinstance(body, dict) else body
    return (json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(errors="surrogatepass")


def overrides(bench: Bench, rng: random.Random, folder: Path) -> None:
    tree = _settings(bench)
    section = rng.choice(list(tree))
    key = rng.choice(list(tree[section]))
    value = damaged(json.dumps(tree[section][key]).encode(), rng).decode(errors="surrogateescape")
    parse_config({"corpus": {"inputs": ["x"]}}, [f"{section}.{key}={value}"])


def trees(bench: Bench, rng: random.Random, folder: Path) -> None:
    parse_config(changed(_settings(bench), rng))


def yaml_files(bench: Bench, rng: random.Random, folder: Path) -> None:
    (folder / "c.yaml").write_bytes(damaged(rng.choice(bench.configs), rng))
    load_config(folder / "c.yaml")


def vector_files(bench: Bench, rng: random.Random, folder: Path) -> None:
    name = rng.choice([name for name in bench.vectors if Path(name).suffix in (".txt", ".bin", ".parquet", ".safetensors")])
    (folder / name).write_bytes(damaged(bench.vectors[name], rng))
    loaded = WordVectors.load(folder / name)
    loaded.most_similar(loaded.words[0], topn=3)


def vector_folders(bench: Bench, rng: random.Random, folder: Path) -> None:
    names = ("vectors.npy", "words.txt", "counts.npy", "meta.json")
    for name in names:
        (folder / name).write_bytes(bench.vectors[name])
    victim = folder / rng.choice(names)
    victim.write_bytes(damaged(victim.read_bytes(), rng))
    loaded = WordVectors.load(folder, verify=True)
    loaded.most_similar(loaded.words[0], topn=3)


def resealed_manifests(bench: Bench, rng: random.Random, folder: Path) -> None:
    manifest = _manifest(bench, rng)
    path = folder / "work" / manifest
    shutil.copytree((bench.workdir / manifest).parent, path.parent)
    path.write_bytes(_as_written(changed(store.unsealed(path.read_bytes()), rng)))
    store.remove_damaged(store.load_artefact(path.parent))


def resealed_summaries(bench: Bench, rng: random.Random, folder: Path) -> None:
    (folder / SUMMARY).write_bytes(_as_written(changed(store.unsealed((bench.workdir / SUMMARY).read_bytes()), rng)))
    list(status_lines(_at(bench, folder)))
    verify_workdir(folder)
    find_answer(folder)
    read_summary(folder)


def workdirs(bench: Bench, rng: random.Random, folder: Path) -> None:
    workdir = _copied(bench, folder)
    victim = rng.choice(sorted(path for path in workdir.rglob("*") if path.is_file() and not path.is_symlink()))
    victim.write_bytes(damaged(victim.read_bytes(), rng))
    verify_workdir(workdir)
    list(status_lines(_at(bench, workdir)))
    run(_at(bench, workdir), workers=InProcess(), progress=Progress(quiet=True))
    vectors = Path("latest", "vectors", "vectors.npy")
    if (workdir / vectors).read_bytes() != (bench.workdir / vectors).read_bytes():
        raise AssertionError(f"other bits after {victim.relative_to(workdir)} was damaged")


def resealed_workdirs(bench: Bench, rng: random.Random, folder: Path) -> None:
    workdir = _copied(bench, folder)
    victim = workdir / _manifest(bench, rng)
    victim.write_bytes(_as_written(changed(store.unsealed(victim.read_bytes()), rng)))
    run(_at(bench, workdir), workers=InProcess(), progress=Progress(quiet=True))


EVENTS: list[dict[str, Any]] = [
    {"type": "params", "time": 1, "params": {"a": "b"}},
    {"type": "metrics", "time": 1, "step": 1, "values": {"train/loss": 1.0}},
    {"type": "artifact", "time": 1, "path": "vectors", "folder": "vectors", "stamp": []},
    {"type": "tags", "tags": {"a": "b"}},
    {"type": "register", "name": "x", "directory": "vectors", "digest": "0"},
    {"type": "finish", "time": 1, "status": "FINISHED"},
]
SPOOL_FILES: dict[str, dict[str, Any]] = {
    "target": {
        "uri": "http://h", "experiment": "e", "run_name": "r", "config_digest": "d", "token": "t", "created_ms": 1,
        "artifact_location": None,
    },
    "progress": {"offset": 3, "state": "shipping"},
    "run": {"run_id": "x"},
}  # fmt: skip


def spools(bench: Bench, rng: random.Random, folder: Path) -> None:
    spool = Spool(folder / "tracking" / "key")
    spool.directory.mkdir(parents=True)
    events = changed(EVENTS, rng) if rng.random() < 0.5 else EVENTS
    data = "".join(json.dumps(event) + "\n" for event in (events if isinstance(events, list) else [events])).encode()
    spool.events.write_bytes(data if events is not EVENTS else damaged(data, rng))
    for name, body in SPOOL_FILES.items():
        (spool.directory / f"{name}.json").write_bytes(damaged(json.dumps(changed(body, rng)).encode(), rng))
    assert isinstance(spool.target(), Target | None)
    assert spool.progress().offset >= 0
    assert isinstance(spool.run_id(), str | None)
    what_is_spooled(spool)
    for batch, _ in batches(read_events(spool, 0)):
        for event in batch:
            if event["type"] in ("artifact", "register"):
                with contextlib.suppress(CannotBeTaken), resolve(spool, event.get("path") or event["directory"]):
                    pass


def corpora(name: str, bench: Bench, rng: random.Random, folder: Path) -> None:
    kind, data = bench.corpora[name]
    (folder / name).write_bytes(damaged(data, rng))
    tree: dict[str, Any] = {"corpus": {"inputs": [str(folder / name)], "format": kind, "max_lost": 1}}
    tree |= {"run": {"workdir": str(folder / "work")}, "tracking": UNTRACKED}
    run(parse_config(tree), until="tokenize", workers=InProcess(), progress=Progress(quiet=True))


def kinds(bench: Bench) -> dict[str, Case]:
    """Every kind of input with what damages and reads one."""
    named = (overrides, trees, yaml_files, vector_files, vector_folders, resealed_manifests, resealed_summaries, spools, workdirs,
             resealed_workdirs)  # fmt: skip
    found: dict[str, Case] = {case.__name__.replace("_", " "): partial(case, bench) for case in named}
    return found | {f"corpus {name}": partial(corpora, name, bench) for name in bench.corpora}


# ── running them ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """What became of the cases of a kind."""

    cases: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)


class TooSlow(BaseException):
    pass


def _too_slow(_number: int, _frame: object) -> None:
    raise TooSlow


def try_case(case: Case, name: str, seed: int, number: int, tally: Tally, *, show: bool = False) -> None:
    """Runs one case and notes how it ended."""
    rng = random.Random(f"{seed}/{name}/{number}")
    begun = time.monotonic()
    timed = signal.getsignal(signal.SIGALRM) is _too_slow  # under pytest its own timeout has the alarm
    if timed:
        signal.alarm(SECONDS_A_CASE)
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz.") as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case(rng, Path(folder))
        ending = "read"
    except PipelineError as error:
        ending = type(error).__name__ if error.exit_code != 70 else f"FAILED: exit code 70: {error}"
    except (ValueError, OSError) as error:
        # What w2v_core raises for files that are not vectors; the command line says it as DataError.
        ending = type(error).__name__ if name.startswith("vector") else f"FAILED: {type(error).__name__}: {error}"
    except TooSlow:
        ending = f"FAILED: above {SECONDS_A_CASE} s"
    except Exception as error:
        ending = f"FAILED: {type(error).__name__}: {error}"
        if show:
            traceback.print_exc()
    finally:
        if timed:
            signal.alarm(0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY_BYTES:
        ending = f"FAILED: above {MEMORY_BYTES >> 30} GiB"
    tally.cases += 1
    tally.slowest_s = max(tally.slowest_s, time.monotonic() - begun)
    tally.endings[ending if not ending.startswith("FAILED") else "FAILED"] += 1
    if ending.startswith("FAILED"):
        tally.failures.append(f"{name}, seed {seed}, case {number}: {ending.removeprefix('FAILED: ')[:300]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    with tempfile.TemporaryDirectory(prefix="fuzz-bench.") as folder:
        bench = make_bench(Path(folder))
        chosen = {name: case for name, case in kinds(bench).items() if not options.kinds or name in options.kinds}
        tallies = {name: Tally() for name in chosen}
        if options.only is not None:
            for name, case in chosen.items():
                try_case(case, name, options.seed, options.only, tallies[name], show=True)
        else:
            # Each kind gets its share of the time, so that slow ones do not take that of quick ones.
            for name, case in chosen.items():
                until = time.process_time() + options.seconds / len(chosen)
                while time.process_time() < until:
                    try_case(case, name, options.seed, tallies[name].cases, tallies[name])
    return report(tallies)


def report(tallies: dict[str, Tally]) -> int:
    print(f"{'kind':<22}{'cases':>7}{'slowest':>10}  endings")
    for name, tally in tallies.items():
        endings = ", ".join(f"{count:,} {ending}" for ending, count in tally.endings.most_common())
        print(f"{name:<22}{tally.cases:>7,}{tally.slowest_s:>8.2f} s  {endings}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    print(f"{sum(tally.cases for tally in tallies.values()):,} cases, {len(failures)} failed, at most {peak:,.0f} MiB")
    shown: set[str] = set()
    for failure in failures:
        reason = failure.partition(": ")[2]
        if reason not in shown:
            print(f"  {failure}")
        shown.add(reason)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
