"""What a person sees during a run, on a real terminal and in a log."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numba
import pytest

from pipeline import progress as shown
from pipeline.progress import Progress
from pipeline.stages.preloading import telling

COLUMNS = 80


class Screen:
    """The other end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._bytes = b""
        self.text = ""

    def wait_for(self, wanted: str, seconds: float = 20.0) -> None:
        until = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < until, f"{wanted!r} did not come, but {self.text!r}"
            self.read()

    def read(self) -> None:
        """What has arrived, after waiting a short time."""
        if select.select([self._descriptor], [], [], 0.05)[0]:
            self._bytes += os.read(self._descriptor, 1 << 16)
            self.text = self._bytes.decode(errors="ignore")

    def drawn(self) -> list[str]:
        """The lines as they were drawn one over the other."""
        return [line for line in self.text.replace("\n", "\r").split("\r") if line]


@contextmanager
def terminal() -> Iterator[tuple[Screen, TextIO]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    try:
        with open(theirs, "w", encoding="utf-8") as stream:
            yield Screen(ours), stream
    finally:
        os.close(ours)


def test_on_a_terminal_a_step_moves_by_itself_and_tells_its_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "FORESIGHT_S", 0.0)
    with terminal() as (screen, stream), Progress(stream) as progress:
        progress.start("train", 100e6, unit="tokens")
        progress.reached(25e6, 100e6, "epoch 1 of 4")
        told_at, until = len(screen.text), time.monotonic() + 20
        while len(set(re.findall(r"(\d+\.\d) s  ", screen.text[told_at:]))) < 3:  # nobody tells anything meanwhile
            assert time.monotonic() < until, screen.text
            screen.read()
        line = next(line for line in reversed(screen.drawn()) if line.startswith("train"))
        assert "25%" in line
        assert "s left" in line
        assert "M tokens/s" in "".join(screen.drawn())


def test_a_line_on_a_terminal_is_never_wider_than_it() -> None:
    with terminal() as (screen, stream), Progress(stream) as progress:
        progress.start("tokenize", 10, note="a note that is much longer than any terminal is wide " * 3, unit="B")
        screen.wait_for("tokenize")
        progress.finish("done")
        screen.wait_for("done")
        assert max(map(len, screen.drawn())) < COLUMNS


def test_a_step_that_is_broken_off_leaves_no_half_of_a_line() -> None:
    with terminal() as (screen, stream):
        with Progress(stream) as progress:
            progress.start("train", 10)
            screen.wait_for("train")
        stream.write("w2v: an error\n")
        stream.flush()
        screen.wait_for("w2v: an error")
        assert screen.text.split("\r")[-2:] == ["w2v: an error", "\n"]


def test_a_log_has_a_line_for_the_beginning_and_the_end_of_a_step_and_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    with Progress(log) as progress:
        progress.start("tokenize", 4e6, unit="B")
        progress.advance(1e6)
        monkeypatch.setattr(shown, "LOG_EVERY_S", 0.0)
        progress.advance(1e6)
        progress.finish("7 tokens (0.1 s)")
    first, between, last = log.getvalue().splitlines()
    assert (first, last) == ("tokenize: started", "tokenize: 7 tokens (0.1 s)")
    assert between.startswith("tokenize: 50%")
    assert between.endswith("MB/s")


def test_times_are_told_in_the_units_that_people_use() -> None:
    assert [shown.span(seconds) for seconds in (0.4, 99, 125, 7384)] == ["0 s", "99 s", "2 min 05 s", "2 h 03 min"]


@pytest.mark.turns(4, 3)
def test_a_run_tells_what_it_does_before_it_starts_workers_and_books_the_start_of_workers_on_no_stage(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three four five six\n" * 500)
    (tmp_path / "run.yaml").write_text(json.dumps({
        "corpus": {"inputs": ["text.txt"]}, "shards": {"sample": 0}, "tracking": {"enabled": False}, "cluster": {"n_workers": 1},
        "train": {"vector_size": 8, "epochs": 1},
    }))  # fmt: skip
    command = [sys.executable, "-m", "pipeline.cli", "tokenize", str(tmp_path / "run.yaml"), "--json"]
    with terminal() as (screen, stream):
        began = time.monotonic()
        with subprocess.Popen(command, stderr=stream, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            screen.wait_for("looking at the corpus", seconds=60)
            while process.poll() is None and "starting workers" not in screen.text:
                screen.read()
            assert process.stdout is not None
            summary = json.loads(process.stdout.read())
            passed = time.monotonic() - began
    assert screen.text.index("looking at the corpus") < screen.text.index("starting workers (cluster.kind: local)")
    assert 0.3 < summary["start_seconds"] < passed - summary["stages"]["tokenize"]["seconds"]


@pytest.mark.turns(4, 3)
def test_a_run_says_that_it_waits_for_mlflow_and_what_came_of_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("one two three four five six\n" * 500)
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(64)
        (tmp_path / "run.yaml").write_text(json.dumps({
            "corpus": {"inputs": ["text.txt"]}, "shards": {"sample": 0}, "train": {"vector_size": 8, "epochs": 1},
            "tracking": {"uri": f"http://127.0.0.1:{hanging.getsockname()[1]}"},
        }))  # fmt: skip
        command = [sys.executable, "-m", "pipeline.cli", "run", str(tmp_path / "run.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=200)
    assert done.returncode == 0, done.stderr
    waiting, result = [line for line in done.stderr.splitlines() if line.startswith("tracking:")]
    assert waiting == "tracking: waiting for MLflow, at most 10 s"
    assert result.startswith("tracking: not all of the run has arrived yet (")
    assert "the next run or `w2v sync` delivers the rest" in done.stdout


def test_compiling_is_told_once_and_code_from_the_cache_is_not_compiled() -> None:
    numba.njit(_one_more, cache=True)(1)
    told: list[str] = []
    with telling(lambda: told.append("compiling")):
        numba.njit(_one_more, cache=True)(1)
        assert told == []
        numba.njit(_one_more)(1)
        numba.njit(_one_more)(1.5)
    numba.njit(_one_more)(1)
    assert told == ["compiling"]


def _one_more(number: float) -> float:
    return number + 1


_TWO_IMPORTS = """
import importlib.abc, sys, threading, time
from pipeline.stages.preloading import telling

class Meanwhile(importlib.abc.MetaPathFinder):
    "Holds up the other thread in the middle of importing Numba until this one has begun to."
    def find_spec(self, name, path, target=None):
        if name.startswith("numba.") and threading.current_thread() is other and not amid.is_set():
            amid.set()
            time.sleep(0.5)

def load():
    import numba.experimental.function_type
    loaded.append(True)

amid, loaded = threading.Event(), []
sys.meta_path.insert(0, Meanwhile())
other = threading.Thread(target=load, daemon=True)
other.start()
amid.wait()
with telling(lambda: None):
    other.join()
assert loaded
"""


def test_waiting_for_what_is_compiled_while_another_thread_imports_numba_comes_to_an_end() -> None:
    done = subprocess.run([sys.executable, "-c", _TWO_IMPORTS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
