"""The states that a broken-off training goes on from: one artefact a checkpoint, named by its round.

Round −1 is what came before the first: nothing, which means the initial parameters, or the start that a training from other
vectors has (`start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import store
from pipeline.errors import DamagedError
from pipeline.training.history import RoundRecord, history_of

CHECKPOINTS = "checkpoints"
VERSION = 5
START = -1


@dataclass(frozen=True)
class Checkpoints:
    """Those of one training."""

    workdir: Path
    training: str
    """Fingerprint of the vectors that it will end with."""
    rounds: int
    """Of the whole training."""

    def fingerprint(self, number: int) -> str:
        return store.fingerprint(CHECKPOINTS, VERSION, {"round": number}, (self.training,))

    def directory(self, number: int) -> Path:
        return store.artefact_directory(self.workdir, CHECKPOINTS, self.fingerprint(number))

    def commit(
        self, number: int, parts: Sequence[store.Part], history: Sequence[RoundRecord], kinds: Sequence[dict[str, Any]]
    ) -> store.Artefact:
        """The checkpoint after round `number`, now visible; `kinds` are the kinds of workers that computed so far."""
        totals = {"round": number, "history": [asdict(record) for record in history], "kinds": list(kinds)}
        manifest = store.Manifest(
            stage=CHECKPOINTS, fingerprint=self.fingerprint(number), parts=tuple(parts), totals=totals, inputs=(self.training,)
        )
        return store.commit(self.workdir, manifest)

    def latest(self) -> tuple[store.Artefact | None, list[RoundRecord]]:
        """The newest intact checkpoint and the history up to it; a damaged one is discarded for the one before."""
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
        """Of the disk, by what is there already."""
        directories = (self.directory(number) for number in self._there())
        return sum(file.stat().st_size for directory in directories for file in directory.glob("*.npy"))

    def discard_all(self) -> None:
        """Removes what led to committed vectors; it can be computed again and is large."""
        for number in self._there():
            store.discard(self.directory(number))

    def _there(self) -> list[int]:
        """The rounds whose checkpoint has a folder, the last one first. A training may have more rounds than are quickly looked
        for one by one."""
        folder = self.workdir / CHECKPOINTS
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return (
            [number for number in reversed(range(START, self.rounds)) if self.directory(number).name in present]
            if present
            else []
        )
