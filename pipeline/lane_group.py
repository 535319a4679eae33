"""The lanes of a round as one worker sees them: parameters in memory, the way to the other lanes, and the merge.

Lanes on one host lie in shared memory (`exchange`): every participant of the host sees all of them. Lanes of other hosts
are not held; in a merge their rows come over links (`network`), one block of rows at a time:

    every host   sends its lanes' rows of block q to q's owner           (the host's agent for q sends)
    q's owner    folds the rows of all lanes over the fixed tree         (`kernels.merge_rows`)
    q's owner    sends the merged rows back to every host                (the agent writes them for its whole host)

The fold sees the same numbers in the same lane order wherever the lanes are, so the bits do not depend on the hosts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.crew import Place, agents, block_of, lanes_of_host, owners_served, participants_by_host
from pipeline.exchange import Barrier, NoBarrier, meet, open_meeting_place, shared_array
from w2v_core.kernels import Kernels, Merge

if TYPE_CHECKING:
    from pipeline.network import Links

Matrices = tuple[NDArray[np.float32], NDArray[np.float32]]
_ROWS, _MERGED = "rows", "merged"


@dataclass
class LaneGroup:
    """The parameters of this worker's lanes and its place among the other workers. Kept from round to round."""

    key: str
    places: tuple[Place, ...]
    participant: int
    base: Matrices
    """Both matrices as all lanes last agreed on them; one a host."""
    copies: dict[int, Matrices]
    """The own copy of every lane of this host; with one lane the base itself."""
    barrier: Barrier
    """Of the participants of this host."""
    links: Links | None
    """To other hosts; None where all lanes are on one host."""
    pool: ThreadPoolExecutor
    merges: int = 0
    """Counted since the group met; the same number in every participant at the same merge."""
    state_round: int | None = None
    """The round whose end state the parameters are; −1 = initial, None = unknown (a round broke off)."""

    @property
    def lanes(self) -> range:
        return self.places[self.participant].lanes

    @property
    def threads(self) -> int:
        return max(1, self.places[self.participant].threads)

    @property
    def host(self) -> range:
        """The participants on this host."""
        return next(host for host in participants_by_host(self.places) if self.participant in host)

    def close(self) -> None:
        self.barrier.close()
        if self.links:
            self.links.close()
        self.pool.shutdown()


def open_group(
    key: str, places: tuple[Place, ...], participant: int, shape: tuple[int, int], patience_s: float
) -> LaneGroup:
    """This worker's lanes with memory for parameters of this shape (rows, padded floats), after all workers have met."""
    ours = lanes_of_host(places, participant)
    host = next(host for host in participants_by_host(places) if participant in host)
    is_alone_with_one_lane = len(places) == 1 and len(ours) == 1
    names = ["base"] + ([] if is_alone_with_one_lane else [f"lane-{lane}" for lane in ours])
    arrays, barrier = _open_memory(f"{key}/{host.start}", names, host, participant, shape, patience_s)
    links = None
    if len(host) < len(places):
        from pipeline.network import join_group

        peers = {*agents(places, participant), *owners_served(places, participant)}
        try:
            links = join_group(key, participant, {peer: places[peer].address for peer in peers}, patience_s)
        except BaseException:
            barrier.close()
            raise
    return LaneGroup(
        key=key,
        places=places,
        participant=participant,
        base=arrays[0],
        copies=dict(zip(ours, arrays[1:] or arrays, strict=True)),
        barrier=barrier,
        links=links,
        pool=ThreadPoolExecutor(max_workers=max(1, places[participant].threads), thread_name_prefix="lane"),
    )


def _open_memory(
    key: str, names: Sequence[str], host: range, participant: int, shape: tuple[int, int], patience_s: float
) -> tuple[list[Matrices], Barrier]:
    """A pair of matrices for every name, shared by the participants of this host, and the barrier they meet at."""
    if len(host) == 1:
        return _pairs(names, lambda name: aligned_zeros(shape)), NoBarrier()
    is_first = participant == host.start
    place = open_meeting_place(key, shape[0] * shape[1] * 4 * 2 * len(names), is_first, patience_s)
    try:
        barrier = meet(place, participant - host.start, len(host), patience_s)
        arrays = _pairs(names, lambda name: shared_array(place / name, shape))
        barrier.wait()
        return arrays, barrier
    finally:
        # Everyone has the files mapped (or the round is lost): their names are not needed any more.
        if is_first:
            shutil.rmtree(place, ignore_errors=True)


def _pairs(names: Sequence[str], allocate: Callable[[str], NDArray[np.float32]]) -> list[Matrices]:
    return [(allocate(f"{name}.w_in"), allocate(f"{name}.w_out")) for name in names]


def aligned_zeros(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A float32 array of zeros that starts on a 64-byte cache line."""
    raw = np.zeros(shape[0] * shape[1] * 4 + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + shape[0] * shape[1] * 4].view(np.float32).reshape(shape)


def merge(group: LaneGroup, kernels: Kernels, rows: int, method: Merge) -> None:
    """Folds all lanes' changes of rows 0 … rows−1 into base and every lane; each participant folds its block of rows.

    Raises PeerLostError when another worker is lost; the parameters are then half merged and must be loaded again.
    """
    group.merges += 1
    group.barrier.wait()
    block = block_of(rows, group.participant, len(group.places))
    if group.links is None:
        _fold(group, kernels, group.copies, block, method)
    else:
        _merge_between_hosts(group, group.links, kernels, rows, block, method)
    group.barrier.wait()


def _merge_between_hosts(
    group: LaneGroup, links: Links, kernels: Kernels, rows: int, block: tuple[int, int], method: Merge
) -> None:
    # What is sent here is sent from the parameters themselves. That is safe because nobody writes these rows before the
    # receiver has them all: a lane's rows change when the owner answers with the merged ones, and the merged rows change
    # in the next merge, which needs something from every host.
    served = [(owner, _cut(rows, owner, group)) for owner in owners_served(group.places, group.participant)]
    speakers = agents(group.places, group.participant)
    sent, merged = (group.merges, _ROWS), (group.merges, _MERGED)
    for owner, (first, last) in served:
        links.send(owner, sent, [matrix[first:last] for pair in group.copies.values() for matrix in pair])
    first, last = block
    copies = {lane: (w_in[first:last], w_out[first:last]) for lane, (w_in, w_out) in group.copies.items()}
    for agent in speakers:
        arrays = links.receive(agent, sent)
        theirs = lanes_of_host(group.places, agent)
        copies |= dict(zip(theirs, zip(arrays[::2], arrays[1::2], strict=True), strict=True))
    _fold_rows(group, kernels, tuple(matrix[first:last] for matrix in group.base), copies, method)
    for agent in speakers:
        links.send(agent, merged, [matrix[first:last] for matrix in group.base])
    for owner, (first, last) in served:
        for matrix, merged_rows in enumerate(links.receive(owner, merged)):
            for pair in (group.base, *group.copies.values()):
                pair[matrix][first:last] = merged_rows
