"""How much of a stream is held, drawn and stored at a time: the numbers that both the stream and the plan of memory go by."""

from __future__ import annotations

STREAM_BYTES = 6
"""A kept token of a shard: int32 word id and two uint8 widths."""
PIECE_TOKENS = 1 << 19
"""Tokens of a part, before subsampling, that are drawn at a time: 2 ms of work, 3 MB at most."""
KEPT_BYTES = 128 << 20
"""Most that a worker keeps of the corpus from epoch to epoch: its sentences, and what was drawn of them ahead (`sampling`)."""
HELD_TOKENS = 1 << 23
"""Kept tokens that a lane has before it; then it gets as many again."""
