"""Files are hashed beside writing, and always as what was written."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path

import pytest

from pipeline.safety.hashing_file import HashingFile

LARGE = 3 << 20


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_digest_is_that_of_the_file_whatever_is_written_in_which_order(tmp_path: Path, durable: bool, seed: int) -> None:
    rng = random.Random(seed)
    with open(tmp_path / "x", "xb", buffering=0) as file, HashingFile(file, durable=durable) as hashing:
        for _ in range(12):
            data = rng.randbytes(rng.choice([0, 1, 1000, LARGE]))
            again = bytearray(data)
            kind = rng.choice([bytes, bytearray, memoryview])
            assert hashing.write(again if kind is bytearray else kind(data)) == len(data)
            again[:] = bytes(len(again))  # what is not `bytes` may change once it is written
            if rng.random() < 0.2:
                assert hashing.hexdigest() == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
        assert hashing.bytes == (tmp_path / "x").stat().st_size
        assert hashing.hexdigest() == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    with open(tmp_path / "x", "xb", buffering=0) as file, HashingFile(file, durable=True) as hashing:
        hashing.write(bytes(LARGE))
        assert threading.active_count() == before + 1, "it was not hashed beside"
    assert threading.active_count() == before


def test_a_system_without_another_thread_hashes_in_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with open(tmp_path / "x", "xb", buffering=0) as file, HashingFile(file) as hashing:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            hashing.write(bytes(LARGE))
        hashing.write(bytes(LARGE))
        assert hashing.hexdigest() == hashlib.sha256(bytes(2 * LARGE)).hexdigest()
