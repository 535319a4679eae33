"""The copies of the parameters in a round as one worker sees them: memory, links to other hosts, and the merge.

Copies on one host lie in memory that every participant of the host sees: its own if it is the only one, otherwise shared memory
(`exchange`). Copies of other hosts are not held; in a merge their rows arrive over links (`exchange.links`), one block of rows at
a time:

    every host   sends its copies' rows of block q to q's owner          (the host's agent for q sends)
    q's owner    folds the rows of all copies over the fixed tree        (`kernels.merge_rows`)
    q's owner    sends the merged rows back to every host                (the agent writes them for its whole host)

`forms` determines the form in which rows are sent. The fold gets the same numbers in the same order wherever the copies are, so
the bits do not depend on the hosts. A block is sent in pieces: while one is folded, the network delivers the next, and at most
two are held. The pieces are dealt to strips, which have connections, buffers and a thread each: one thread that packs, encrypts,
decrypts and folds needs longer than a network of 10 Gbit/s.

In eight bits copies exchange the rows that they showed when the merge began, so they can be trained meanwhile:

    show            copies the rows of this worker's copies to where the merge sees them
    begin_merge     begins to fold them, in threads of its own (`meanwhile`)
    end_merge       waits until the base has changed, on all workers of the host
    take_over       lets this worker's copies catch up with the base
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.exchange.attempts import Attempts
from pipeline.exchange.host import usable_cores
from pipeline.exchange.huge_pages import zeros_in_small_pages
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
from pipeline.stream.sizes import LOADERS
from pipeline.training.busy_cores import BusyCores
from pipeline.training.forms import Form, Matrices, Spread, WholeRows
from pipeline.training.meanwhile import Meanwhile, spread_over
from pipeline.training.placement import AHEAD, MOST_STRIPS, MergeRole, Place, block_of, merge_role, pieces_of, strips_of
from w2v_core.kernels import Kernels, Merge, aligned_zeros

if TYPE_CHECKING:
    from pipeline.exchange.links import Links
    from pipeline.exchange.network import Group

Item = TypeVar("Item")
Result = TypeVar("Result")
MATRICES = ("w_in", "w_out")
SLOWER = 10.0
"""How many times as long as this worker another one may train the same tokens: it has fewer cores, or other work."""
_ROWS, _MERGED = "rows", "merged"
ROWS_AT_ONCE = 1 << 13
"""Rows that a thread fills or copies at a time."""


@dataclass
class LaneGroup:
    """The copies of the parameters on this worker's host, and its place among the workers. Kept from round to round."""

    key: str
    places: tuple[Place, ...]
    participant: int
    role: MergeRole
    base: Matrices
    """Both matrices in their last merged state; one pair per host."""
    copies: dict[int, Matrices]
    """What a merge sees of every copy on this host, by its number: the copy itself, or, with eight bits, its rows when the merge
    began. With a single copy, the base itself."""
    barrier: Barrier
    """The barrier of the participants on this host."""
    others: tuple[Group, ...]
    """Links to other hosts, once per strip; empty if all copies are on one host."""
    pool: ThreadPoolExecutor
    bits: int = 32
    """Bits per number in a merge."""
    trained: dict[int, Matrices] = field(init=False)
    """The copies that this worker trains; with eight bits in memory of their own."""
    form: Form = field(init=False)
    """The form of merges within this host and of the first strip."""
    forms: tuple[Form, ...] = field(init=False)
    """The form of every strip, with buffers of its own."""
    meanwhile: Callable[[], bool] = nothing_to_do
    """Called at a merge while this worker waits for others on its host (`exchange.shared_memory.Barrier`)."""
    merges: int = 0
    """Number of merges so far, equal in all participants at the same merge."""
    background: Meanwhile = field(init=False)
    """The threads of merges that take place while copies are trained."""
    cores: BusyCores = field(init=False)
    """How many threads train each copy."""
    state_round: int | None = None
    """The round after which the parameters are in this state; −1 = initial, None = unknown (an interrupted round)."""
    _allowance_s: float = 0.0

    def __post_init__(self) -> None:
        self.trained = {copy: self.copies[copy] for copy in self.own}
        # Threads that work on strips have no others to share a fold with.
        threads, spread = self.threads if len(self.others) <= 1 else 1, self.spread
        self.background = Meanwhile(min(self.threads, MOST_STRIPS))
        self.cores = BusyCores(max(1, min(self.threads, usable_cores()) // len(self.own)))
        if self.trains_meanwhile:
            shape = self.base[0].shape
            self.trained = {copy: (aligned_zeros(*shape), aligned_zeros(*shape)) for copy in self.own}
            threads, spread = min(threads, MOST_STRIPS), self.background.spread
        self.forms = tuple(self._new_form(spread, threads) for _ in range(max(1, len(self.others))))
        self.form = self.forms[0]

    def _new_form(self, spread: Spread, threads: int) -> Form:
        if self.trains_meanwhile:
            from pipeline.training.changes import PackedChanges

            return PackedChanges(self.base, self.copies, self.role, spread, threads)
        return WholeRows(self.base, self.copies, self.role, spread, threads)

    @property
    def trains_meanwhile(self) -> bool:
        """Whether copies can be trained while a merge takes place."""
        return self.bits == 8 and self.places[-1].last_copy > 1

    @property
    def own(self) -> range:
        """The copies that this worker trains."""
        return self.places[self.participant].copies

    @property
    def attempt(self) -> str | None:
        """The attempt that this thread takes part in, if it may have to wait for other hosts."""
        return self.others[0].links.attempts.own if self.others else None

    @property
    def threads(self) -> int:
        return max(1, self.places[self.participant].threads)

    def wait_for_slower(self, trained_s: float) -> None:
        """Lets merges wait for others that train SLOWER times as long as this worker did. The older training gets, the more
        tokens lie between merges; without this, a slow host would be taken for lost again and again."""
        if SLOWER * trained_s > self._allowance_s:
            self._allowance_s = SLOWER * trained_s
            self.barrier.allow(self._allowance_s)
            for strip in self.others:
                strip.links.allow(self._allowance_s)

    def spread(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`[work(item) for item in items]` on this worker's threads, including the calling one, since handing work to another
        thread and waiting for it takes 0.1 to 0.3 ms, as long as training a thousand tokens."""
        return spread_over(self.pool.submit, self.threads, work, items)

    def spread_loading(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """`spread` for work that takes much memory in each thread."""
        return spread_over(self.pool.submit, min(self.threads, LOADERS), work, items)

    def free_copies(self) -> None:
        """After the last merge, when all that is left to do is to write the base: files need memory, too, until the disk has
        them. On a virtual machine memory that has just been freed is at hand sooner than any other."""
        self.copies.clear()
        self.trained.clear()

    def close(self) -> None:
        self.barrier.close()
        if self.background.is_under_way:
            for links in self.others:
                links.give_up()
        self.background.close()
        for links in self.others:
            links.close()
        self.pool.shutdown()


def open_group(
    key: str, places: tuple[Place, ...], participant: int, shape: tuple[int, int], patience_s: float, attempts: Attempts,
    bits: int = 32,
) -> LaneGroup:  # fmt: skip
    """This worker's group, with memory for parameters of this shape (rows, padded floats), after all its workers have joined.
    `bits`: per number in a merge."""
    role = merge_role(places, participant)
    has_one_copy = places[-1].last_copy == 1
    makers = {"base.w_in": role.host[0], "base.w_out": role.host[-1]}
    if not has_one_copy:
        makers |= {
            f"copy-{copy}.{matrix}": index
            for index in role.host for copy in places[index].copies for matrix in MATRICES
        }  # fmt: skip
    arrays, barrier = _open_memory(f"{key}/{role.host.start}", makers, role.host, participant, shape, patience_s, attempts)
    pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
    others: tuple[Group, ...] = ()
    if role.agents:
        # Only rounds that span several hosts need distributed here.
        from pipeline.exchange.network import join_groups

        peers = {agent for agent, _ in role.agents} | set(role.owners)
        addresses = {peer: places[peer].address for peer in peers}
        try:
            others = join_groups(key, participant, addresses, patience_s, attempts, strips_of(places))
        except BaseException:
            barrier.close()
            raise
    return LaneGroup(
        key=key,
        places=places,
        participant=participant,
        role=role,
        base=pairs[0],
        copies=dict(zip(role.copies, pairs[1:] or pairs, strict=True)),
        barrier=barrier,
        others=others,
        bits=bits,
        pool=ThreadPoolExecutor(max_workers=max(1, places[participant].threads - 1), thread_name_prefix="lane"),
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
    """A matrix for every name, shared by the participants of this host, and their barrier.

    Merges read a base row by row, so it does not need huge pages, which are slower to allocate; a single copy, which is trained
    in the base, does.

    `makers` says which participant allocates a matrix. On a virtual machine fresh memory may take a millisecond per MiB, so they
    share the work.
    """

    def is_base(name: str) -> bool:
        return name.startswith("base.") and len(makers) > len(MATRICES)

    if len(host) == 1:
        remove_deserted_places()
        return [zeros_in_small_pages(*shape) if is_base(name) else aligned_zeros(*shape) for name in makers], NoBarrier()
    is_first = participant == host.start
    place = open_meeting_place(key, shape[0] * shape[1] * 4 * len(makers), is_first, patience_s, attempts)
    try:
        reach("meet", participant)
        barrier = meet(place.path, participant - host.start, len(host), patience_s, attempts)
        arrays = {
            name: make_shared_array(place.path / name, shape, huge=not is_base(name))
            for name, maker in makers.items() if maker == participant
        }  # fmt: skip
        barrier.wait()
        arrays |= {name: open_shared_array(place.path / name, shape) for name in makers.keys() - arrays.keys()}
        barrier.wait()
        return [arrays[name] for name in makers], barrier
    finally:
        # All participants have mapped the files, or the round is lost: their names are no longer needed.
        place.close()


def merge(group: LaneGroup, kernels: Kernels, rows: int, method: Merge) -> None:
    """Folds all copies' changes of rows 0 … rows−1 into the base and every copy; each participant folds its block of rows.

    Raises PeerLostError if another worker is lost; the parameters are then half merged and must be loaded again.
    """
    if group.trains_meanwhile:
        show(group, rows)
        begin_merge(group, kernels, rows, method)
        end_merge(group)
        return take_over(group, rows, wholly=True)
    group.merges += 1
    reach("merge", f"{group.merges}.{group.participant}")
    group.barrier.wait(group.meanwhile)
    _fold_all(group, kernels, rows, method, group.spread, group.attempt)
    reach("merged", f"{group.merges}.{group.participant}")
    group.barrier.wait()


def show(group: LaneGroup, rows: int) -> None:
    """Copies the trained rows 0 … rows−1 to where the next merge sees them."""

    def copy(some: slice) -> None:
        for number, pair in group.trained.items():
            for shown, trained in zip(group.copies[number], pair, strict=True):
                shown[some] = trained[some]

    group.spread(copy, some_rows(0, rows))


def begin_merge(group: LaneGroup, kernels: Kernels, rows: int, method: Merge) -> None:
    """Begins to fold what copies have shown of rows 0 … rows−1 into the base. Until it ends, only trained rows may be used."""
    group.merges += 1
    reach("merge", f"{group.merges}.{group.participant}")
    group.barrier.wait(group.meanwhile)
    attempt = group.attempt
    group.background.begin(lambda: _fold_all(group, kernels, rows, method, group.background.spread, attempt))


def end_merge(group: LaneGroup) -> None:
    """Waits until the merge has ended on this host. Raises PeerLostError as `merge` does."""
    group.background.end(group.meanwhile)
    reach("merged", f"{group.merges}.{group.participant}")
    group.barrier.wait(group.meanwhile)


def take_over(group: LaneGroup, rows: int, *, wholly: bool) -> None:
    """Adds to the trained rows 0 … rows−1 what the base has gained over what they had shown; `wholly`: makes them the base."""
    from w2v_core.kernels.cpu.change_bytes import catch_up

    def take(some: slice) -> None:
        for number, pair in group.trained.items():
            for trained, base, shown in zip(pair, group.base, group.copies[number], strict=True):
                if wholly:
                    trained[some] = base[some]
                else:
                    catch_up(trained[some], base[some], shown[some])

    group.spread(take, some_rows(0, rows))


def some_rows(first: int, last: int) -> list[slice]:
    """Rows [first, last) in ranges for several threads."""
    return [slice(begin, min(begin + ROWS_AT_ONCE, last)) for begin in range(first, last, ROWS_AT_ONCE)]


def _fold_all(group: LaneGroup, kernels: Kernels, rows: int, method: Merge, spread: Spread, attempt: str | None) -> None:
    if group.others:
        _merge_between_hosts(group, kernels, rows, method, spread, attempt)
    else:
        group.form.fold(kernels, slice(*block_of(rows, group.participant, len(group.places))), method)


def _merge_between_hosts(
    group: LaneGroup, kernels: Kernels, rows: int, method: Merge, spread: Spread, attempt: str | None
) -> None:
    """Every strip of the merge, each in a thread of this worker, as far as there are pieces for them."""
    pieces = {owner: _pieces(group, rows, owner) for owner in (group.participant, *group.role.owners)}
    attempts = group.others[0].links.attempts

    def merge_strip(number: int) -> None:
        own = {owner: found[number :: len(group.others)] for owner, found in pieces.items()}
        with attempts.helping(attempt):
            _merge_strip(group, group.others[number].links, group.forms[number], own, kernels, method)

    # In order: whichever hosts have fewer threads to spare, all of them work on the first unfinished strip.
    spread(merge_strip, range(min(len(group.others), max(map(len, pieces.values())))))


def _merge_strip(
    group: LaneGroup, links: Links, form: Form, pieces: Mapping[int, list[slice]], kernels: Kernels, method: Merge
) -> None:
    """Exchanges and folds these pieces of each owner's block."""
    ours = pieces[group.participant]
    answers = [(owner, piece) for owner in group.role.owners for piece in pieces[owner]]
    for owner, piece in answers:
        links.send(owner, (group.merges, _ROWS), *form.to_send(owner, piece))
    for number in range(len(ours) + AHEAD):
        # A peer sends in this order: its rows of our block, then its own merged block.
        if number == len(ours):
            for owner, piece in answers:
                links.expect(owner, (group.merges, _MERGED), *form.merged_room(owner, piece))
        if number >= AHEAD:
            _fold_piece(group, links, form, kernels, number - AHEAD, ours[number - AHEAD], method)
        if number < len(ours):
            for agent, copies in group.role.agents:
                links.expect(agent, (group.merges, _ROWS), form.room(copies, number, ours[number]))
    links.receive_all()
    links.flush()


def _fold_piece(group: LaneGroup, links: Links, form: Form, kernels: Kernels, number: int, piece: slice, method: Merge) -> None:
    """Folds a piece of this participant's block, once all hosts' rows of it have arrived, and sends it back to them."""
    for agent, _ in group.role.agents:
        links.receive(agent)
    answer = form.fold_piece(kernels, number, piece, method)
    for agent, _ in group.role.agents:
        links.send(agent, (group.merges, _MERGED), answer)


def _pieces(group: LaneGroup, rows: int, participant: int) -> list[slice]:
    return pieces_of(*block_of(rows, participant, len(group.places)), group.base[0].shape[1], max(1, len(group.others)))
