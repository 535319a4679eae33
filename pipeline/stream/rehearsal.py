"""The text of each epoch when training continues from vectors: all new text, and a sample of the text they were trained on.

What was learnt stays if some of it is repeated (rehearsal, Robins 1995); repeating all of it would be a training from scratch.
The first epoch takes everything, because the rates of all words and all new neighbours of old words depend on it; each later
epoch takes all new text, and another sample of the rest.

Pure: takes the numbers and sizes of parts, returns pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import floor


def choose_pieces(pieces: Sequence[int], known: Collection[int], share: float, epoch: int) -> list[tuple[int, ...] | None]:
    """The pieces that an epoch takes of every part, None for all; `known` are the numbers of the parts learnt before.

    Of the known pieces it takes a `share`, evenly spread, and different ones in the next epoch; at least one if all are known.
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
    """The approximate share of all tokens that each epoch takes (pieces have equal sizes only on average); empty if every epoch
    takes everything. `tokens` and `pieces` are the numbers of every part."""
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
