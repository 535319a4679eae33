"""Which text an epoch takes of a training that goes on from vectors: new text every time, of what they know already a sample.

What was learnt stays if some of it is seen again (rehearsal, Robins 1995); all of it every time is what a cold build does. The
first epoch takes everything, because every word's rate and every new neighbour of an old word is in it; those behind it take
all that is new, and each another sample of the rest.

Pure: names and sizes of parts in, pieces out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import floor


def choose_pieces(pieces: Sequence[int], known: Collection[int], share: float, epoch: int) -> list[tuple[int, ...] | None]:
    """Of every part the pieces that an epoch takes, None for all; `known` are the numbers of the parts that were learnt before.

    A `share` of the known pieces, evenly spread, others in the next epoch; one at least if there is nothing else.
    """
    if epoch == 0 or share >= 1 or not known:
        return [None] * len(pieces)
    places = [(part, piece) for part, count in enumerate(pieces) if part in known for piece in range(count)]
    taken = {place for at, place in enumerate(places, epoch) if floor((at + 1) * share) > floor(at * share)}
    if not taken and len(known) == len(pieces):
        taken = {places[epoch % len(places)]}
    return [
        tuple(piece for piece in range(count) if (part, piece) in taken) if part in known else None
        for part, count in enumerate(pieces)
    ]


def lengths(tokens: Sequence[int], pieces: Sequence[int], known: Collection[int], share: float, epochs: int) -> tuple[float, ...]:
    """The share of all tokens that each epoch takes, about, because pieces are of one size only in the mean; none where every
    epoch takes everything. `tokens` and `pieces` are of every part."""
    if share >= 1 or not known or epochs == 1:
        return ()
    taken = [
        sum(
            size * (1.0 if chosen is None else len(chosen) / count)
            for size, count, chosen in zip(tokens, pieces, choose_pieces(pieces, known, share, epoch), strict=True)
        )
        for epoch in range(epochs)
    ]
    return tuple(some / max(1, taken[0]) for some in taken)
