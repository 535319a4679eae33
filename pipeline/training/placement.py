"""Who trains which lanes: the workers of a round, and who speaks for a host when lanes of several hosts merge.

Plain functions of plain data; the cluster code obeys them.

    crew        the workers that train, host by host, at most one a lane
    place       one worker's part of the crew: its lanes and its host. Its number in the crew is the *participant*
    block       the rows of a merge are cut into one block a participant; the participant owns and folds its block
    agent       for a block of another host: the participant of this host that sends this host's rows of the block to
                its owner, takes the merged rows back, and writes them for the whole host
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.errors import TemporaryError
from pipeline.training.plan import assign_lanes

if TYPE_CHECKING:
    from pipeline.cluster.workers import Member


@dataclass(frozen=True, kw_only=True)
class Place:
    """One worker's part in a round."""

    address: str
    host: str
    """Equal for workers that share memory; the places of one host are neighbours."""
    threads: int
    first_lane: int
    last_lane: int
    """Exclusive."""

    @property
    def lanes(self) -> range:
        return range(self.first_lane, self.last_lane)


def choose_crew(members: Sequence[Member], lanes: int) -> list[Member]:
    """The workers that train: one a lane at most, from as few hosts as that takes, neighbours in lane order on one host.

    Hosts with more workers are filled first, because shared memory is faster than any network. Raises TemporaryError
    when there is no worker.
    """
    if not members:
        raise TemporaryError("no worker is left; start workers and run the same command again, it continues")
    workers_of: dict[str, int] = {}
    for member in members:
        workers_of[member.host] = workers_of.get(member.host, 0) + 1
    preferred = sorted(members, key=lambda member: (-workers_of[member.host], member.host, member.address))
    return sorted(preferred[:lanes], key=lambda member: (member.host, member.address))


def seat(crew: Sequence[Member], lanes: int) -> tuple[Place, ...]:
    """The lanes of every member of the crew: contiguous, so that every host has a contiguous run of lanes too."""
    return tuple(
        Place(address=member.address, host=member.host, threads=member.threads, first_lane=run.start, last_lane=run.stop)
        for member, run in zip(crew, assign_lanes(lanes, len(crew)), strict=True)
    )


def participants_by_host(places: Sequence[Place]) -> list[range]:
    """The participants of each host, as contiguous ranges in crew order. Raises ValueError if a host comes twice."""
    hosts, first = [], 0
    for _, group in groupby(places, key=lambda place: place.host):
        count = len(list(group))
        hosts.append(range(first, first + count))
        first += count
    if len(hosts) != len({place.host for place in places}):
        raise ValueError("expected the places of each host side by side, found a host in two runs; sort the crew by host")
    return hosts


@dataclass(frozen=True)
class Errands:
    """What one participant has to do with whom in a merge."""

    host: range
    """The participants on its host."""
    lanes: range
    """All lanes on its host."""
    agents: tuple[tuple[int, range], ...]
    """(participant, lanes of its host) for every other host, in lane order: who speaks for that host about the block
    that this participant owns."""
    owners: tuple[int, ...]
    """The participants of other hosts for whose blocks this participant speaks for its own host."""


def errands_of(places: Sequence[Place], participant: int) -> Errands:
    """A participant's errands. The n-th owner of a host meets the n-th participant of another host, so that the work is
    shared evenly and two hosts of equal size need one connection a participant."""
    hosts = participants_by_host(places)
    lanes = {host: range(places[host.start].first_lane, places[host.stop - 1].last_lane) for host in hosts}
    own = next(host for host in hosts if participant in host)
    others = [host for host in hosts if host != own]
    rank = participant - own.start
    return Errands(
        host=own,
        lanes=lanes[own],
        agents=tuple((host[rank % len(host)], lanes[host]) for host in others),
        owners=tuple(owner for host in others for owner in host if own[(owner - host.start) % len(own)] == participant),
    )


def block_of(rows: int, participant: int, participants: int) -> tuple[int, int]:
    """Half-open range of rows that a participant owns in a merge of rows 0 … rows−1; may be empty."""
    return rows * participant // participants, rows * (participant + 1) // participants
