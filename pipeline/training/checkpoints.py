"""Checkpoints, from which an interrupted training continues: one artefact each, identified by its round.

Nothing is stored before the first one: training starts with the initial parameters, or with those of the vectors that it
continues from (`start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError
from pipeline.storage.local_files import copy_of
from pipeline.training.history import RoundRecord, history_of

CHECKPOINTS = "checkpoints"
VERSION = 5


@dataclass
class Discards:
    """Removes checkpoints that are no longer needed; from a bucket, where that takes several requests, while training goes on."""

    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="discard"))
    _last: Future[None] | None = None

    def discard(self, directory: Path) -> None:
        """Removes a checkpoint, at most one at a time; raises the error of the one before."""
        self.wait()
        if copy_of(directory):
            self._last = self._pool.submit(store.discard, directory)
        else:
            store.discard(directory)

    def wait(self) -> None:
        """Returns once the last one is removed."""
        if self._last:
            self._last.result()


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training."""

    workdir: Path
    training: str
    """Fingerprint of the vectors that it will end with."""
    rounds: int
    """Number of rounds of the whole training."""

    def fingerprint(self, number: int) -> str:
        return store.fingerprint(CHECKPOINTS, VERSION, {"round": number}, (self.training,))

    def directory(self, number: int) -> Path:
        return store.artefact_directory(self.workdir, CHECKPOINTS, self.fingerprint(number))

    def commit(
        self, number: int, parts: Sequence[store.Part], history: Sequence[RoundRecord], kinds: Sequence[dict[str, Any]]
    ) -> store.Artefact:
        """Commits the checkpoint after round `number` and returns it; `kinds` are the kinds of arithmetic used so far."""
        totals = {"round": number, "history": [asdict(record) for record in history], "kinds": list(kinds)}
        manifest = store.Manifest(
            stage=CHECKPOINTS, fingerprint=self.fingerprint(number), parts=tuple(parts), totals=totals, inputs=(self.training,)
        )
        return store.commit(self.workdir, manifest)

    def latest(self) -> tuple[store.Artefact | None, list[RoundRecord]]:
        """The newest intact checkpoint and the history up to it; damaged ones are discarded."""
        for number in self._there():
            try:
                found = store.open_artefact(self.workdir, CHECKPOINTS, self.fingerprint(number))
                if found is None:
                    continue
                if not store.find_damage(found):
                    return found, history_of(found)
            except DamagedError:
                pass
            store.discard(self.directory(number))
        return None, []

    def bytes_in_use(self) -> int:
        """The bytes on disk of the existing checkpoints."""
        directories = (self.directory(number) for number in self._there())
        return sum(file.stat().st_size for directory in directories for file in directory.glob("*.npy"))

    def discard_all(self) -> None:
        """Removes all checkpoints once the vectors are committed: they are large and can be computed again."""
        for number in self._there():
            store.discard(self.directory(number))

    def _there(self) -> list[int]:
        """The rounds whose checkpoint has a folder, the last one first. Lists the folder once, since a training may have too many
        rounds to look for each."""
        folder = self.workdir / CHECKPOINTS
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return [number for number in reversed(range(self.rounds)) if self.directory(number).name in present] if present else []
