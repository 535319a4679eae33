"""A file of every kind in a workdir is flipped, cut, deleted, swapped, replaced by an older one, by a link or by a FIFO; then
`verify`, `query`, `export` and `run` must find and name the change, or give a result with the same bits.

    python -m tests.security.tampering              every kind of file and every way, as a table
    python -m tests.security.tampering snapshots    only the kinds of file whose names contain the word
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, load_config
from pipeline.errors import PipelineError
from pipeline.formats.exports import export_vectors
from pipeline.formats.placing import place
from pipeline.formats.trained import load_vectors
from pipeline.history.answers import intact_vectors, require_answer
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.workdir import verify_workdir
from tests.tiny import tiny_config, write_corpus

WAYS = ("flipped", "cut", "deleted", "swapped", "older", "link", "FIFO")
SECONDS = 60
MEMORIES = {
    "known_files.json": ("deleted", "swapped", "older"),
    "metrics.prom": ("deleted", "swapped", "older"), "summary.json": ("deleted",),
}  # fmt: skip
"""Files that no run needs: it is no damage if they are missing, or complete but out of date. An unfinished run has no summary."""


@dataclass(frozen=True)
class Bench:
    """The workdirs of a finished run, of another run and of an older one, all with the same kinds of files."""

    folder: Path
    matrix: bytes

    @property
    def workdir(self) -> Path:
        return self.folder / "work"


@dataclass(frozen=True)
class Cell:
    """The outcome for one kind of file and one way of tampering."""

    verify: str
    query: str
    export: str
    run: str

    @property
    def good(self) -> bool:
        return all(
            re.match("named|same bits|refused|harmless", text) for text in (self.verify, self.query, self.export, self.run)
        )


def make_bench(folder: Path) -> Bench:
    inputs = write_corpus(folder / "corpus", 300)
    for name, seed, epochs in (("older", 3, 1), ("other", 4, 2), ("work", 3, 2)):
        tree = tiny_config(folder / name, inputs, tracking={"enabled": False})
        tree["train"] = {"lanes": 1, "epochs": epochs, "vector_size": 4}
        tree["run"] = {"name": "tiny", "workdir": str(folder / name), "seed": seed}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        run(load_config(folder / f"{name}.yaml"), workers=InProcess(), progress=Progress(quiet=True))
    return Bench(folder, (folder / "work" / "latest" / "vectors" / "vectors.npy").read_bytes())


def kind_of(path: Path) -> str:
    """The file's place in a workdir, with hashes and numbers left out."""
    return re.sub(r"[0-9a-f]{16}|\d{3,}", "…", str(path))


def files(workdir: Path) -> dict[str, Path]:
    """One file of every kind, relative to the workdir, without locks and links."""
    found: dict[str, Path] = {}
    for path in sorted(workdir.rglob("*")):
        inside = path.relative_to(workdir)
        if path.is_file() and not path.is_symlink() and inside.parts[0] != "latest" and path.name != ".lock":
            found.setdefault(kind_of(inside), inside)
    return found


def tamper(bench: Bench, victim: Path, kind: str, way: str, rng: random.Random) -> bool:
    """Tampers with a file; False if that is not possible or would change nothing."""
    before = victim.read_bytes()
    victim.unlink()
    if way == "flipped":
        data = bytearray(before)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)
    elif way == "cut":
        victim.write_bytes(before[: rng.randrange(len(before))])
    elif way in ("swapped", "older"):
        source = bench.folder / {"swapped": "other", "older": "older"}[way]
        other = files(source).get(kind)
        if other is None or (source / other).read_bytes() == before:
            return False
        shutil.copy(source / other, victim)
    elif way == "link":
        (victim.parent.parent / "elsewhere").write_bytes(before)
        victim.symlink_to(victim.parent.parent / "elsewhere")
    elif way == "FIFO":
        os.mkfifo(victim)
    return True


def try_cell(bench: Bench, kind: str, inside: Path, way: str, seed: int = 19) -> Cell | None:
    """The outcome of the four commands; None if this way does not apply to this kind of file."""
    rng = random.Random(f"{seed}/{kind}/{way}")
    with tempfile.TemporaryDirectory(prefix="tampered.") as folder:
        workdir = Path(folder) / "work"
        shutil.copytree(bench.workdir, workdir, symlinks=True)
        if not tamper(bench, workdir / inside, kind, way, rng):
            return None
        config = load_config(bench.folder / "work.yaml", [f"run.workdir={workdir}"])
        verified = _verify(workdir, inside)
        if verified == "silent" and way in MEMORIES.get(kind, ()):
            verified = "harmless"
        asked = [_ending(answer, bench) for answer in _answers(workdir, Path(folder) / "out")]
        return Cell(verified, asked[0], asked[1], _ending(lambda: _run(config), bench))


def _verify(workdir: Path, inside: Path) -> str:
    damage = verify_workdir(workdir)[1]
    if not damage:
        return "silent"
    return "named" if any(inside.name in line or str(inside.parent) in line for line in damage) else f"misnamed: {damage[0]}"


def _answers(workdir: Path, out: Path) -> Iterator[Callable[[], bytes]]:
    def query() -> bytes:
        return load_vectors(intact_vectors(require_answer(workdir))).matrix.tobytes()

    def export() -> bytes:
        vectors = load_vectors(intact_vectors(require_answer(workdir)))
        place(out, lambda folder: export_vectors(vectors, ["npy"], folder))
        return (out / "vectors.npy").read_bytes()

    yield query
    yield export


def _run(config: RunConfig) -> bytes:
    run(config, workers=InProcess(), progress=Progress(quiet=True))
    return (config.workdir / "latest" / "vectors" / "vectors.npy").read_bytes()


def _ending(ask: Callable[[], bytes], bench: Bench) -> str:
    try:
        found = ask()
    except PipelineError as error:
        return f"refused {error.exit_code}"
    except Exception as error:
        return f"FAILED {type(error).__name__}: {error}"
    return "same bits" if bench.matrix.endswith(found) else "FAILED: other bits"


class TooSlow(BaseException):
    """Not an OSError, which code that reads files might expect and ignore."""


def main() -> int:
    def too_slow(_number: int, _frame: object) -> None:
        raise TooSlow

    signal.signal(signal.SIGALRM, too_slow)
    cells: list[tuple[str, str, Cell]] = []
    with tempfile.TemporaryDirectory(prefix="tampering.") as folder:
        bench = make_bench(Path(folder))
        print(f"{'file':<52}{'way':<9}{'verify':<10}{'query':<12}{'export':<12}run")
        for kind, inside in files(bench.workdir).items():
            for way in WAYS if all(word in kind for word in sys.argv[1:]) else ():
                signal.alarm(SECONDS)
                try:
                    cell = try_cell(bench, kind, inside, way)
                except TooSlow:
                    cell = Cell(*[f"FAILED: above {SECONDS} s"] * 4)
                signal.alarm(0)
                if cell:
                    print(f"{kind:<52}{way:<9}{cell.verify:<10}{cell.query:<12}{cell.export:<12}{cell.run}", flush=True)
                    cells.append((kind, way, cell))
    return report(cells)


def report(cells: list[tuple[str, str, Cell]]) -> int:
    """Prints how many cells of each kind of file ended how, as a table of Markdown; 1 if any failed."""
    print("\n| kind of file | cells | verify | query and export | run | failed |\n| --- | --- | --- | --- | --- | --- |")
    for kind in [*dict.fromkeys(kind for kind, _, _ in cells), None]:
        found = [cell for each, _, cell in cells if kind in (each, None)]
        asked = (
            _counted([cell.verify for cell in found]),
            _counted([text for cell in found for text in (cell.query, cell.export)]),
        )
        ran, failed = _counted([cell.run for cell in found]), sum(not cell.good for cell in found)
        print(f"| {kind or 'all'} | {len(found)} | {' | '.join((*asked, ran))} | {failed} |")
    failed = sum(not cell.good for _, _, cell in cells)
    print(f"{len(cells)} cells, {failed} failed")
    return 1 if failed else 0


def _counted(endings: list[str]) -> str:
    return ", ".join(f"{ending} {count}" for ending, count in Counter(endings).most_common())


if __name__ == "__main__":
    sys.exit(main())
