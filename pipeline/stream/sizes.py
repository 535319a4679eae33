"""How much of a stream is held, drawn and stored at a time: constants shared by the stream and the memory plan."""

from __future__ import annotations

STREAM_BYTES = 6
"""Bytes per kept token of a shard: an int32 word id and two uint8 widths."""
PIECE_TOKENS = 1 << 19
"""Tokens of a part, before subsampling, that are drawn at a time: 2 ms of work, 3 MB at most."""
KEPT_BYTES = 128 << 20
"""Most that a worker keeps of the corpus across epochs: its sentences and the pieces drawn ahead (`sampling`)."""
LOADERS = 8
"""Most threads of a worker that load its lanes' streams; each holds the part that it draws from."""
PART_BYTES = 32 << 20
"""What drawing from a part of the usual size takes: its tokens, and the memory in which they are read and drawn."""
HELD_TOKENS = 1 << 23
"""Kept tokens that are loaded for a lane at a time."""
