"""Which worker trains which copies of the parameters, and which represents its host when copies are merged.

Plain functions of plain data, which the cluster code follows.

    chosen      the workers that train, host by host, at most one per copy, with the threads of all workers of their host; on
                a single host one for all copies, where its kernels train them together (`admission`)
    place       one of them, with its copies and its host. Its number among them is the *participant*
    block       the rows of a merge are cut into one block per participant, which owns and folds it
    piece       part of a block: what is sent between hosts at a time
    strip       the pieces that one thread of every participant exchanges over its own connections: of n strips, every n-th piece
    agent       for a block of another host: the participant of this host that sends this host's rows of the block to
                its owner, takes the merged rows back, and writes them for the whole host
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.errors import TemporaryError
from pipeline.training.plan import assign_copies

if TYPE_CHECKING:
    from pipeline.cluster.workers import Member


@dataclass(frozen=True, kw_only=True)
class Place:
    """One worker's place in a round: its copies and its host."""

    address: str
    host: str
    """Equal for workers that share memory; the places of one host are neighbours."""
    threads: int
    first_copy: int
    last_copy: int
    """Exclusive."""

    @property
    def copies(self) -> range:
        return range(self.first_copy, self.last_copy)


def choose_workers(members: Sequence[Member], copies: int) -> list[Member]:
    """The workers that train: at most one per copy, from as few hosts as possible, with the workers of a host side by side.

    Hosts with more workers are filled first, because shared memory is faster than any network. Workers without a copy leave their
    threads to the workers of their host that have one, since a copy's lanes run in threads. Raises TemporaryError if there are no
    workers.
    """
    if not members:
        raise TemporaryError("no worker is left; start workers and run the same command again, it continues")
    workers_of: dict[str, int] = {}
    for member in members:
        workers_of[member.host] = workers_of.get(member.host, 0) + 1
    preferred = sorted(members, key=lambda member: (-workers_of[member.host], member.host, member.address))
    trainers = sorted(preferred[:copies], key=lambda member: (member.host, member.address))
    chosen: list[Member] = []
    for host, group in groupby(trainers, key=lambda member: member.host):
        threads, there = sum(member.threads for member in members if member.host == host), list(group)
        shares = assign_copies(threads, len(there)) if threads >= len(there) else [range(1)] * len(there)
        chosen += [replace(member, threads=len(share)) for member, share in zip(there, shares, strict=True)]
    return chosen


def join_host(chosen: Sequence[Member]) -> list[Member]:
    """One of these workers with the threads of all of them, if they are on one host; otherwise all of them."""
    if len({member.host for member in chosen}) > 1:
        return list(chosen)
    return [replace(chosen[0], threads=sum(member.threads for member in chosen))]


def place_copies(chosen: Sequence[Member], copies: int) -> tuple[Place, ...]:
    """The place of every chosen worker; its copies are contiguous, and so are those of every host."""
    return tuple(
        Place(address=member.address, host=member.host, threads=member.threads, first_copy=run.start, last_copy=run.stop)
        for member, run in zip(chosen, assign_copies(copies, len(chosen)), strict=True)
    )


def participants_by_host(places: Sequence[Place]) -> list[range]:
    """The participants of each host, as contiguous ranges. Raises ValueError if a host occurs in two runs."""
    hosts, first = [], 0
    for _, group in groupby(places, key=lambda place: place.host):
        count = len(list(group))
        hosts.append(range(first, first + count))
        first += count
    if len(hosts) != len({place.host for place in places}):
        raise ValueError("expected the places of each host side by side, found a host in two runs; sort the workers by host")
    return hosts


@dataclass(frozen=True)
class MergeRole:
    """A participant's part in a merge: its host, and its counterparts on other hosts."""

    host: range
    """The participants on its host."""
    copies: range
    """All copies on its host."""
    agents: tuple[tuple[int, range], ...]
    """(participant, copies of its host) for every other host, in order of copies: that host's agent for the block that this
    participant owns."""
    owners: tuple[int, ...]
    """The participants of other hosts for whose blocks this participant is its own host's agent."""


def merge_role(places: Sequence[Place], participant: int) -> MergeRole:
    """A participant's part in a merge. The n-th owner of a host is paired with the n-th participant of another host, so that the
    work is shared evenly and two hosts of equal size need one connection per participant."""
    hosts = participants_by_host(places)
    copies = {host: range(places[host.start].first_copy, places[host.stop - 1].last_copy) for host in hosts}
    own = next(host for host in hosts if participant in host)
    others = [host for host in hosts if host != own]
    rank = participant - own.start
    return MergeRole(
        host=own,
        copies=copies[own],
        agents=tuple((host[rank % len(host)], copies[host]) for host in others),
        owners=tuple(owner for host in others for owner in host if own[(owner - host.start) % len(own)] == participant),
    )


def block_of(rows: int, participant: int, participants: int) -> tuple[int, int]:
    """The half-open range of rows that a participant owns in a merge of rows 0 … rows−1; may be empty."""
    return rows * participant // participants, rows * (participant + 1) // participants


PIECE_BYTES = 1 << 20
"""Bytes of a piece in both matrices of a copy: large compared with the overhead of a message, small compared with caches."""
AHEAD = 2
"""Pieces of a block that may be in transit from other hosts before any of them has been folded."""


MOST_STRIPS = 4
"""Most threads that exchange rows with other hosts, each over its own connections. Four exchange 10 Gbit/s in eight bits with TLS
in less time than the wire takes (infra/benchmarks/records/hosts-2026-11-29.md)."""
LEAST_PIECE_BYTES = PIECE_BYTES // 2
"""Pieces are smaller only if a block is: waking another thread takes about as long as the rest of what a piece takes."""


def strips_of(places: Sequence[Place]) -> int:
    """The number of strips of the merges between these places, which all of them have threads for."""
    return max(1, min(MOST_STRIPS, *(place.threads for place in places)))


def pieces_of(first: int, last: int, row_floats: int, strips: int = 1) -> list[slice]:
    """The rows first … last − 1 cut into the pieces in which they are sent, which `strips` strips take in turn: at least one,
    which may be empty."""
    least, most = (max(1, size // (2 * 4 * row_floats)) for size in (LEAST_PIECE_BYTES, PIECE_BYTES))
    rows = min(most, max(least, -(-(last - first) // strips)))
    return [slice(begin, min(begin + rows, last)) for begin in range(first, max(last, first + 1), rows)]
