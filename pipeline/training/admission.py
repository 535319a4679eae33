"""Admission of workers to training: each computes a sample and reports its limits before it gets a lane.

Before a round, the driver calls `admit` to choose the workers. New workers run `introduce`; those that compute other bits than
the run are left out and named. When the chosen workers change, the memory they will need is compared with their limits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.cluster.room import Room, driver_room, measure_room
from pipeline.cluster.state import WithState, WorkerState
from pipeline.cluster.workers import Member, WorkerLostError, Workers
from pipeline.config import Train
from pipeline.errors import CapacityError, TemporaryError
from pipeline.exchange.host import usable_cores
from pipeline.stream.sampling import KeptStreams
from pipeline.training import arithmetic, capacity
from pipeline.training.placement import choose_workers, join_host, place_copies
from pipeline.training.plan import copies_of
from pipeline.training.stints import trains_together
from w2v_core.kernels import load_kernels

INTRODUCTIONS = 20


@dataclass(frozen=True)
class Greeting:
    """What a new worker reports."""

    numbers: arithmetic.Numbers
    room: Room
    trains_copies: bool
    """Whether its kernels train and merge several copies in one call."""
    cores: int
    """How many cores it may use."""
    host_cores: int
    """How many its host has."""


def introduce(train: Train, state: WorkerState) -> Greeting:
    """This worker's sample and memory limits; releases lanes left here by an earlier driver."""
    state.release(but=KeptStreams if train.engine == "kernels" else None)
    # The sample loads the kernels, so the room is measured after it. The plan counts what is kept of the corpus.
    numbers, room = state.of(arithmetic.KnownNumbers).of(train), measure_room()
    kept = state.of(KeptStreams).bytes
    return Greeting(
        numbers,
        replace(room, used=room.used - kept, host=None if room.host is None else room.host + kept),
        trains_copies=trains_together(train, load_kernels(train.backend)),
        cores=usable_cores(),
        host_cores=os.cpu_count() or 1,
    )


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
    _members: list[Member] = field(default_factory=list)
    """All workers that could be chosen at the last choice."""
    _chosen: list[Member] = field(default_factory=list)
    _named: set[str] = field(default_factory=set)

    def admit(self, workers: Workers) -> list[Member]:
        """The workers of the next round. Raises CapacityError, ServiceError if no worker computes as the run does, and
        TemporaryError if there is none in time or the remaining ones have too little memory."""
        members = self._fit(self._meet(workers))
        if members != self._members:
            chosen = choose_workers(members, copies_of(self.train, self.sizes.vocab_size))
            joined = join_host(chosen)
            if joined != chosen and self._can_join(joined[0]):
                chosen = joined
            self._check_room(chosen, len(members), were_lost=len(members) < len(self._members))
            self._members, self._chosen = members, chosen
        return self._chosen

    def _can_join(self, member: Member) -> bool:
        """Whether this worker trains the copies of its whole host as fast as one worker for each: all in one call
        (`Kernels.train_copies`), with as many cores, and within its memory."""
        found = self._met[member.address]
        if not found.trains_copies or found.cores < min(member.threads, found.host_cores):
            return False
        plan, rooms = self._needs([member])
        return not capacity.explain_shortfalls(plan, rooms, driver_room(self.workdir, self.disk_in_use))

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

    def _needs(self, chosen: Sequence[Member]) -> tuple[capacity.MemoryPlan, dict[str, Room]]:
        """The memory that these workers will need, and what each has."""
        plan = capacity.plan_memory(self.sizes, place_copies(chosen, copies_of(self.train, self.sizes.vocab_size)))
        return plan, {member.address: self._met[member.address].room for member in chosen}

    def _check_room(self, chosen: Sequence[Member], present: int, *, were_lost: bool) -> None:
        plan, rooms = self._needs(chosen)
        try:
            capacity.check_room(plan, rooms, driver_room(self.workdir, self.disk_in_use))
        except CapacityError as error:
            if were_lost:
                lost = f"workers were lost, and for those left {str(error).partition(':')[0]}"
                raise TemporaryError(
                    f"{lost}; start workers and run the same command again, it continues:{str(error).partition(':')[2]}"
                ) from None
            raise
        if self.plan is None:
            self.on_plan(capacity.describe(plan, rooms, present))
        self.plan = capacity.summarise(plan, rooms)
