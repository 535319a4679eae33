"""Admission of workers to training: each computes a sample and reports its memory limits before it gets a lane.

Before a round, the driver calls `admit` to choose the workers. New workers run `introduce`; those that compute other bits than
the run are left out and named. When the chosen workers change, the memory they will need is compared with their limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.cluster.room import Room, driver_room, measure_room
from pipeline.cluster.state import WithState, WorkerState
from pipeline.cluster.workers import Member, WorkerLostError, Workers
from pipeline.config import Train
from pipeline.errors import CapacityError, TemporaryError
from pipeline.stream.sampling import KeptStreams
from pipeline.training import arithmetic, capacity
from pipeline.training.placement import choose_workers, place_copies
from pipeline.training.plan import copies_of

INTRODUCTIONS = 20


@dataclass(frozen=True)
class Greeting:
    """What a new worker reports."""

    numbers: arithmetic.Numbers
    room: Room


def introduce(train: Train, state: WorkerState) -> Greeting:
    """This worker's sample and memory limits; releases lanes left here by an earlier driver."""
    state.release(but=KeptStreams if train.engine == "kernels" else None)
    # The sample loads the kernels, so the room is measured after it. The plan counts what is kept of the corpus.
    numbers, room = state.of(arithmetic.KnownNumbers).of(train), measure_room()
    kept = state.of(KeptStreams).bytes
    return Greeting(numbers, replace(room, used=room.used - kept, host=None if room.host is None else room.host + kept))


@dataclass
class Admission:
    """The workers that a training knows, and the kinds of arithmetic that took part in it."""

    train: Train
    sizes: capacity.TrainingSizes
    workdir: Path
    disk_in_use: int
    """Bytes of this training's existing checkpoints."""
    kinds: list[arithmetic.Numbers]
    """The kinds that past rounds were computed with, in order; empty until the first round ends."""
    on_plan: Callable[[str], None]
    """Called with one line on what training will need."""
    on_note: Callable[[str], None]
    """Called with notes about workers that compute differently."""
    plan: dict[str, Any] | None = None
    _met: dict[str, Greeting] = field(default_factory=dict)
    _chosen: list[Member] = field(default_factory=list)
    _named: set[str] = field(default_factory=set)

    def admit(self, workers: Workers) -> list[Member]:
        """The workers of the next round. Raises CapacityError, ServiceError if no worker computes as the run does, and
        TemporaryError if there is none in time or the remaining ones have too little memory."""
        chosen = choose_workers(self._fit(self._meet(workers)), copies_of(self.train, self.sizes.vocab_size))
        if chosen != self._chosen:
            self._check_room(chosen)
            self._chosen = chosen
        return chosen

    def round_done(self) -> list[dict[str, Any]]:
        """The kinds of arithmetic of all rounds up to now, as plain data for the checkpoint."""
        for member in self._chosen:
            found = self._met[member.address].numbers
            if found.digest not in {kind.digest for kind in self.kinds}:
                self.kinds.append(found)
        return [asdict(kind) for kind in self.kinds]

    def _meet(self, workers: Workers) -> list[Member]:
        """The current workers, after running `introduce` on new ones."""
        for _ in range(INTRODUCTIONS):
            members = workers.members()
            strangers = [member for member in members if member.address not in self._met]
            if not strangers:
                return members
            try:
                greetings = workers.together(WithState(introduce), [self.train] * len(strangers), strangers)
            except WorkerLostError:
                continue
            self._met |= {member.address: greeting for member, greeting in zip(strangers, greetings, strict=True)}
            return members
        raise TemporaryError(
            f"workers come and go: {INTRODUCTIONS} times one was lost during its admission; check the workers' logs, then run "
            "the same command again, it continues"
        )

    def _fit(self, members: Sequence[Member]) -> list[Member]:
        numbers = [self._met[member.address].numbers for member in members]
        verdict = arithmetic.judge(numbers, self.kinds[0] if self.kinds else None, deterministic=self.train.deterministic)
        for note in verdict.notes:
            if note not in self._named:
                self._named.add(note)
                self.on_note(note)
        return [member for member, found in zip(members, numbers, strict=True) if found.digest in verdict.accepted]

    def _check_room(self, chosen: Sequence[Member]) -> None:
        plan = capacity.plan_memory(self.sizes, place_copies(chosen, copies_of(self.train, self.sizes.vocab_size)))
        rooms = {member.address: self._met[member.address].room for member in chosen}
        try:
            capacity.check_room(plan, rooms, driver_room(self.workdir, self.disk_in_use))
        except CapacityError as error:
            if len(chosen) < len(self._chosen):
                lost = f"workers were lost, and for those left {str(error).partition(':')[0]}"
                raise TemporaryError(
                    f"{lost}; start workers and run the same command again, it continues:{str(error).partition(':')[2]}"
                ) from None
            raise
        if self.plan is None:
            self.on_plan(capacity.describe(plan, rooms))
        self.plan = capacity.summarise(plan, rooms)
