"""The lanes of a round as one worker sees them: parameters in memory, the way to the other lanes, and the merge.

Lanes on one host lie in shared memory (`exchange`): every participant of the host sees all of them. Lanes of other hosts
are not held; in a merge their rows come over links (`network`), one block of rows at a time:

    every host   sends its lanes' rows of block q to q's owner           (the host's agent for q sends)
    q's owner    folds the rows of all lanes over the fixed tree         (`kernels.merge_rows`)
    q's owner    sends the merged rows back to every host                (the agent writes them for its whole host)

The fold sees the same numbers in the same lane order wherever the lanes are, so the bits do not depend on the hosts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.exchange.attempts import Attempts
from pipeline.exchange.shared_memory import (
    Barrier,
    NoBarrier,
    make_shared_array,
    meet,
    nothing_to_do,
    open_meeting_place,
    open_shared_array,
    remove_deserted_places,
)
from pipeline.failpoints import reach
from pipeline.training.placement import Errands, Place, block_of, errands_of
from w2v_core.kernels import Kernels, Merge

if TYPE_CHECKING:
    from pipeline.exchange.network import Links

Item = TypeVar("Item")
Result = TypeVar("Result")
Matrices = tuple[NDArray[np.float32], NDArray[np.float32]]
MATRICES = ("w_in", "w_out")
_ROWS, _MERGED = "rows", "merged"


@dataclass
class LaneGroup:
    """The parameters of this worker's lanes and its place among the other workers. Kept from round to round."""

    key: str
    places: tuple[Place, ...]
    participant: int
    errands: Errands
    base: Matrices
    """Both matrices as all lanes last agreed on them; one a host."""
    copies: dict[int, Matrices]
    """The own copy of every lane of this host; with one lane the base itself."""
    barrier: Barrier
    """Of the participants of this host."""
    links: Links | None
    """To other hosts; None where all lanes are on one host."""
    pool: ThreadPoolExecutor
    meanwhile: Callable[[], bool] = nothing_to_do
    """What this worker does at a merge while it waits for others of its host (`exchange.Barrier`)."""
    merges: int = 0
    """Counted since the group met; the same number in every participant at the same merge."""
    state_round: int | None = None
    """The round whose end state the parameters are; −1 = initial, None = unknown (a round broke off)."""

    @property
    def own(self) -> range:
        """The copies that this worker trains."""
        return self.places[self.participant].copies

    @property
    def threads(self) -> int:
        return max(1, self.places[self.participant].threads)

    def spread(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`[work(item) for item in items]` over this worker's threads. With one thread or one item it is done in the thread
        that asks: handing it over and waiting takes 0.3 ms, as long as a thousand tokens."""
        return [work(item) for item in items] if min(self.threads, len(items)) == 1 else list(self.pool.map(work, items))

    def close(self) -> None:
        self.barrier.close()
        if self.links:
            self.links.close()
        self.pool.shutdown()


def open_group(
    key: str, places: tuple[Place, ...], participant: int, shape: tuple[int, int], patience_s: float, attempts: Attempts
) -> LaneGroup:
    """This worker's lanes with memory for parameters of this shape (rows, padded floats), after all workers have met."""
    errands = errands_of(places, participant)
    has_one_copy = places[-1].last_copy == 1
    makers = {"base.w_in": errands.host[0], "base.w_out": errands.host[-1]}
    if not has_one_copy:
        makers |= {
            f"lane-{lane}.{matrix}": index
            for index in errands.host for lane in places[index].copies for matrix in ("w_in", "w_out")
        }  # fmt: skip
    arrays, barrier = _open_memory(f"{key}/{errands.host.start}", makers, errands.host, participant, shape, patience_s, attempts)
    pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
    links = None
    if errands.agents:
        # Only rounds that span hosts need distributed here.
        from pipeline.exchange.network import join_group

        peers = {agent for agent, _ in errands.agents} | set(errands.owners)
        addresses = {peer: places[peer].address for peer in peers}
        try:
            links = join_group(key, participant, addresses, patience_s, attempts)
        except BaseException:
            barrier.close()
            raise
    return LaneGroup(
        key=key,
        places=places,
        participant=participant,
        errands=errands,
        base=pairs[0],
        copies=dict(zip(errands.copies, pairs[1:] or pairs, strict=True)),
        barrier=barrier,
        links=links,
        pool=ThreadPoolExecutor(max_workers=max(1, places[participant].threads), thread_name_prefix="lane"),
    )


def _open_memory(
    key: str,
    makers: Mapping[str, int],
    host: range,
    participant: int,
    shape: tuple[int, int],
    patience_s: float,
    attempts: Attempts,
) -> tuple[list[NDArray[np.float32]], Barrier]:
    """A matrix for every name, shared by the participants of this host, and the barrier they meet at.

    `makers`: which participant makes a matrix. On a virtual machine fresh memory may take a millisecond a MiB, so they share
    the work.
    """
    if len(host) == 1:
        remove_deserted_places()
        return [aligned_zeros(shape) for _ in makers], NoBarrier()
    is_first = participant == host.start
    place = open_meeting_place(key, shape[0] * shape[1] * 4 * len(makers), is_first, patience_s, attempts)
    try:
        reach("meet", participant)
        barrier = meet(place.path, participant - host.start, len(host), patience_s, attempts)
        arrays = {
            # Merges read the base from one row to the next, so it has no need of huge pages, which are dearer to make.
            name: make_shared_array(place.path / name, shape, huge=not name.startswith("base."))
            for name, maker in makers.items() if maker == participant
        }  # fmt: skip
        barrier.wait()
        arrays |= {name: open_shared_array(place.path / name, shape) for name in makers.keys() - arrays.keys()}
        barrier.wait()
        return [arrays[name] for name in makers], barrier
    finally:
        # Everyone has the files mapped (or the round is lost): their names are not needed any more.
        place.close()


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
    reach("merge", f"{group.merges}.{group.participant}")
    group.barrier.wait(group.meanwhile)
    if group.links is None:
        _fold(group, kernels, group.base, list(group.copies.values()), _cut(group, rows, group.participant), method)
    else:
        _merge_between_hosts(group, group.links, kernels, rows, method)
    reach("merged", f"{group.merges}.{group.participant}")
    group.barrier.wait()


def _merge_between_hosts(group: LaneGroup, links: Links, kernels: Kernels, rows: int, method: Merge) -> None:
    # What is sent is sent from the parameters themselves. That is safe because nobody writes these rows before the
    # receiver has them all: a lane's rows change when the owner of their block answers with the merged ones, and merged
    # rows change in the next merge, which needs an answer from every host.
    block = _cut(group, rows, group.participant)
    owners = [(owner, _cut(group, rows, owner)) for owner in group.errands.owners]
    for owner, theirs in owners:
        links.send(owner, (group.merges, _ROWS), [matrix[theirs] for pair in group.copies.values() for matrix in pair])
    foreign: dict[int, Matrices] = {}
    for agent, lanes in group.errands.agents:
        arrays = iter(links.receive(agent, (group.merges, _ROWS)))
        foreign |= {lane: (next(arrays), next(arrays)) for lane in lanes}
    ours = {lane: (w_in[block], w_out[block]) for lane, (w_in, w_out) in group.copies.items()}
    in_lane_order = [pair for _, pair in sorted((ours | foreign).items(), key=lambda item: item[0])]
    base = (group.base[0][block], group.base[1][block])
    _fold(group, kernels, base, in_lane_order, slice(0, len(base[0])), method)
    for agent, _ in group.errands.agents:
        links.send(agent, (group.merges, _MERGED), base)
    for owner, theirs in owners:
        for matrix, merged in enumerate(links.receive(owner, (group.merges, _MERGED))):
            for pair in (group.base, *group.copies.values()):
                pair[matrix][theirs] = merged


def _cut(group: LaneGroup, rows: int, participant: int) -> slice:
    return slice(*block_of(rows, participant, len(group.places)))


def _fold(group: LaneGroup, kernels: Kernels, base: Matrices, lanes: Sequence[Matrices], rows: slice, method: Merge) -> None:
    """Folds these rows of all lanes into the base and every lane. Rows are independent of each other, so the threads'
    shares do not matter to the bits; the order of the lanes does."""

    def fold(share: int) -> None:
        first, last = block_of(rows.stop - rows.start, share, group.threads)
        part = slice(rows.start + first, rows.start + last)
        for matrix in (0, 1):
            kernels.merge_rows(base[matrix][part], [pair[matrix][part] for pair in lanes], method)

    group.spread(fold, range(group.threads))
