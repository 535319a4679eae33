"""`make fuzz`: seeded, time-boxed mutations of all that is read. Every case must be read or give one of our errors; none may
end as a bug of this program, take more than 20 s or use more than 2 GiB. Processor time is counted, so that a busy machine tries
as much as an idle one.

    python -m tests.security.fuzz [--seconds 120] [--seed 19] [KIND…]

A case is identified by kind, seed and number; `--only NUMBER` runs it again by itself and shows where it failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import load_config, parse_config
from pipeline.errors import PipelineError
from pipeline.history.answers import find_answer
from pipeline.history.snapshot import SUMMARY, read_summary
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.tracking.delivery import batches
from pipeline.tracking.registry import CannotBeTaken, resolve
from pipeline.tracking.spool import Spool, Target, read_events, what_is_spooled
from pipeline.workdir import status_lines, status_of, verify_workdir
from tests.security.fuzz_bench import UNTRACKED, Bench, as_written, at, make_bench
from tests.security.fuzz_history import resealed_histories
from tests.security.mutations import changed, damaged
from w2v_core.vectors import WordVectors

SECONDS_A_CASE, MEMORY_BYTES = 20, 2 << 30
FAILED = "FAILED: "

Case = Callable[[random.Random, Path], None]


# ── one function per kind: (random numbers, an empty folder) → nothing, or the error that a person would see ─────────


def _settings(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(load_config(bench.folder / "c.yaml").model_dump_json(by_alias=True))
    return found


def _manifest(bench: Bench, rng: random.Random) -> Path:
    """One of the bench's manifests, relative to the workdir."""
    return rng.choice(sorted(bench.workdir.glob(f"*/*/{store.MANIFEST}"))).relative_to(bench.workdir)


def _copied(bench: Bench, folder: Path) -> Path:
    shutil.copytree(bench.workdir, folder / "work", symlinks=True)
    return folder / "work"


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
    path.write_bytes(as_written(changed(store.unsealed(path.read_bytes()), rng)))
    store.remove_damaged(store.load_artefact(path.parent))


def resealed_summaries(bench: Bench, rng: random.Random, folder: Path) -> None:
    (folder / SUMMARY).write_bytes(as_written(changed(store.unsealed((bench.workdir / SUMMARY).read_bytes()), rng)))
    list(status_lines(status_of(at(bench, folder))))
    verify_workdir(folder)
    find_answer(folder)
    read_summary(folder)


def workdirs(bench: Bench, rng: random.Random, folder: Path) -> None:
    workdir = _copied(bench, folder)
    victim = rng.choice(sorted(path for path in workdir.rglob("*") if path.is_file() and not path.is_symlink()))
    victim.write_bytes(damaged(victim.read_bytes(), rng))
    verify_workdir(workdir)
    list(status_lines(status_of(at(bench, workdir))))
    run(at(bench, workdir), workers=InProcess(), progress=Progress(quiet=True))
    vectors = Path("latest", "vectors", "vectors.npy")
    if (workdir / vectors).read_bytes() != (bench.workdir / vectors).read_bytes():
        raise AssertionError(f"other bits after {victim.relative_to(workdir)} was damaged")


def resealed_workdirs(bench: Bench, rng: random.Random, folder: Path) -> None:
    workdir = _copied(bench, folder)
    victim = workdir / _manifest(bench, rng)
    victim.write_bytes(as_written(changed(store.unsealed(victim.read_bytes()), rng)))
    run(at(bench, workdir), workers=InProcess(), progress=Progress(quiet=True))


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
                with contextlib.suppress(CannotBeTaken), resolve(spool, event["path" if "path" in event else "directory"]):
                    pass


def corpora(name: str, bench: Bench, rng: random.Random, folder: Path) -> None:
    kind, data = bench.corpora[name]
    (folder / name).write_bytes(damaged(data, rng))
    tree: dict[str, Any] = {"corpus": {"inputs": [str(folder / name)], "format": kind, "max_lost": 1}}
    tree |= {"run": {"workdir": str(folder / "work")}, "tracking": UNTRACKED}
    run(parse_config(tree), until="tokenize", workers=InProcess(), progress=Progress(quiet=True))


def kinds(bench: Bench) -> dict[str, Case]:
    """Every kind of input, with the function that damages and reads one."""
    named = (overrides, trees, yaml_files, vector_files, vector_folders, resealed_manifests, resealed_summaries, spools, workdirs,
             resealed_histories, resealed_workdirs)  # fmt: skip
    found: dict[str, Case] = {case.__name__.replace("_", " "): partial(case, bench) for case in named}
    return found | {f"corpus {name}": partial(corpora, name, bench) for name in bench.corpora}


# ── running them ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """The outcomes of the cases of one kind."""

    cases: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_mib: float = 0.0
    failures: list[str] = field(default_factory=list)

    def note(self, case: str, ending: str, seconds: float) -> None:
        self.cases += 1
        self.slowest_s = max(self.slowest_s, seconds)
        failed = ending.startswith(FAILED)
        self.endings["FAILED" if failed else ending] += 1
        if failed:
            self.failures.append(f"{case}: {ending.removeprefix(FAILED)[:300]}")


class TooSlow(BaseException):
    pass


def _too_slow(_number: int, _frame: object) -> None:
    raise TooSlow


def try_case(case: Case, name: str, seed: int, number: int, *, show: bool = False) -> tuple[str, float]:
    """(how the case ended, seconds)."""
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
        ending = type(error).__name__ if error.exit_code != 70 else f"{FAILED}exit code 70: {error}"
    except (ValueError, OSError) as error:
        # What w2v_core raises for files that are not vectors; the command line says it as DataError.
        ending = type(error).__name__ if name.startswith("vector") else f"{FAILED}{type(error).__name__}: {error}"
    except TooSlow:
        ending = f"{FAILED}above {SECONDS_A_CASE} s"
    except Exception as error:
        ending = f"{FAILED}{type(error).__name__}: {error}"
        if show:
            traceback.print_exc()
    finally:
        if timed:
            signal.alarm(0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY_BYTES:
        ending = f"{FAILED}above {MEMORY_BYTES >> 30} GiB"
    return ending, time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security.fuzz", description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--only", type=int)
    parser.add_argument("--bench", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    if options.bench:
        return _child(options.bench, options.kinds[0], options.seed, options.first, options.seconds)
    with tempfile.TemporaryDirectory(prefix="fuzz-bench.") as folder:
        bench = make_bench(Path(folder))
        chosen = {name: case for name, case in kinds(bench).items() if not options.kinds or name in options.kinds}
        if options.only is not None:
            for name, case in chosen.items():
                print(name, *try_case(case, name, options.seed, options.only, show=True))
            return 0
        (bench.folder / "bench.pickle").write_bytes(pickle.dumps(bench))
        # Each kind gets its share of the time, so that slow ones do not take that of quick ones.
        return report({name: _try_kind(bench, name, options.seed, options.seconds / len(chosen)) for name in chosen})


def _child(folder: Path, name: str, seed: int, first: int, seconds: float) -> int:
    """Runs cases of one kind and tells of each, before it and after it: what they are made of may end the process."""
    case, number = kinds(pickle.loads((folder / "bench.pickle").read_bytes()))[name], first
    until = time.process_time() + seconds
    with open(folder / "told", "w") as told:
        while time.process_time() < until:
            print(number, file=told, flush=True)
            print(json.dumps(try_case(case, name, seed, number)), file=told, flush=True)
            number += 1
    return 0


def _try_kind(bench: Bench, name: str, seed: int, seconds: float) -> Tally:
    """Cases for so many seconds of the processor, in a process of their own, and in another one after each that ends it."""
    tally = Tally()
    while seconds > 0:
        arguments = ["--bench", bench.folder, "--seed", seed, "--first", tally.cases, "--seconds", seconds, name]
        command = [sys.executable, "-W", "ignore", "-m", "tests.security.fuzz", *map(str, arguments)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert process.stderr
        said = process.stderr.read()
        used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(used[1])
        lines = (bench.folder / "told").read_text().splitlines()
        for number, ending in zip(lines[::2], lines[1::2], strict=False):
            tally.note(f"{name}, seed {seed}, case {number}", *json.loads(ending))
        if process.returncode == 0:
            seconds = 0
        elif len(lines) % 2:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            tally.note(f"{name}, seed {seed}, case {lines[-1]}", f"{FAILED}the process ended ({process.returncode}): {last}", 0.0)
            seconds -= used[2].ru_utime + used[2].ru_stime
        else:
            raise RuntimeError(f"{name}: {said.decode(errors='replace')}")
        tally.peak_mib = max(tally.peak_mib, used[2].ru_maxrss / 1024)
    return tally


def report(tallies: dict[str, Tally]) -> int:
    print(f"{'kind':<22}{'cases':>7}{'slowest':>10}{'peak':>10}  endings")
    for name, tally in tallies.items():
        endings = ", ".join(f"{count:,} {ending}" for ending, count in tally.endings.most_common())
        print(f"{name:<22}{tally.cases:>7,}{tally.slowest_s:>8.2f} s{tally.peak_mib:>6,.0f} MiB  {endings}")
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    slowest, peak = (max(getattr(tally, name) for tally in tallies.values()) for name in ("slowest_s", "peak_mib"))
    cases = sum(tally.cases for tally in tallies.values())
    print(f"{cases:,} cases, {len(failures)} failed, slowest {slowest:.2f} s, at most {peak:,.0f} MiB")
    shown: set[str] = set()
    for failure in failures:
        reason = failure.partition(": ")[2]
        if reason not in shown:
            print(f"  {failure}")
        shown.add(reason)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
