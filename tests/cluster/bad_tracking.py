"""Whole runs whose MLflow server is absent, slow, full, refuses requests, or disappears and returns: what tracking may cost.

python -m tests.cluster.bad_tracking [--sentences 20000] [--epochs 40] [--repeats 3]: runs in every state alternate with runs
without tracking; prints a table of seconds. `make tracking` runs it.

In every state the vectors must have the bits of the run without tracking, the run must be at most 5 % and 15 s slower, and
once a real server answers at the address, `w2v sync` must leave one MLflow run with every point of the loss curve once.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.test_live_tracking import Server, server_answers
from tests.cluster.test_tracking_servers import kill_server, start_server
from tests.cluster.tracked import wait_for
from tests.ports import free_port
from tests.tiny import tiny_config, write_corpus

MAY_TAKE = (1.05, 15.0)
"""A tracked run may take at most this many times as long, plus this many seconds."""
DELAY_S = 1.0
FULL_BYTES = 1 << 20
"""The size of the disk under a full server: MLflow's empty database takes 0.7 MB."""


@dataclass
class Bench:
    """One corpus and one configuration, run again and again, each time in a new folder."""

    root: Path
    epochs: int
    sentences: int = 6000
    number: int = 0
    process: subprocess.Popen[str] | None = None

    def run(self, uri: str | None, meanwhile: Callable[[Path], None] = lambda file: None) -> tuple[float, dict[str, Any], Path]:
        """(seconds, summary, configuration) of a run that tracks to `uri`, or not at all; `meanwhile` runs beside it."""
        self.number += 1
        folder = self.root / str(self.number)
        inputs = write_corpus(self.root / "corpus", self.sentences)
        tracking: dict[str, object] = {"uri": uri} if uri else {"enabled": False}
        config = tiny_config(
            folder / "run", inputs, tracking=tracking, corpus={"block_bytes": 1 << 20},
            train={"vector_size": 100, "epochs": self.epochs, "lanes": 1, "checkpoint_every": None},
        )  # fmt: skip
        del config["cluster"]
        file = folder / "run.yaml"
        folder.mkdir()
        file.write_text(yaml.safe_dump(config))
        beside = threading.Thread(target=meanwhile, args=(file,))
        begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", str(file), "--json", "--quiet"], stdout=subprocess.PIPE, text=True
        )
        beside.start()
        out, _ = self.process.communicate()
        seconds = time.monotonic() - begun
        beside.join()
        if self.process.returncode:
            raise AssertionError(f"the run ended with {self.process.returncode}")
        return seconds, json.loads(out), file

    def is_over(self) -> bool:
        return self.process is None or self.process.returncode is not None


# ── the states of the server ─────────────────────────────────────────────────────────────────────────────────────────


def nothing(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    with real(root, port):
        return bench.run(f"http://127.0.0.1:{port}")


def absent(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    return bench.run(f"http://127.0.0.1:{port}")


def slow(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    """Every answer comes a second late."""
    behind = free_port()
    with real(root, behind), _slowed(port, behind):
        return bench.run(f"http://127.0.0.1:{port}")


class NoSmallDiskError(Exception):
    """This process may not mount a small disk here."""


def full(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    """The server's disk has no room for what it receives; it gets more afterwards. Needs root."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={FULL_BYTES}", "tmpfs", str(root)], check=False)
    if mounted.returncode:
        raise NoSmallDiskError("a small disk for the server takes root to mount")
    with real(root, port):
        taken = root / "taken"
        with suppress(OSError):
            taken.write_bytes(bytes(FULL_BYTES))
        done = bench.run(f"http://127.0.0.1:{port}")
        taken.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", str(root)], check=True)
        return done


def refusing(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    """Every request gets 403."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Refuses) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        done = bench.run(f"http://127.0.0.1:{port}")
        server.shutdown()
        thread.join()
    return done


def gone_and_back(bench: Bench, port: int, root: Path) -> tuple[float, dict[str, Any], Path]:
    """The server is killed by SIGKILL once it shows some of the curve, or at the end of a faster run, and started again three
    seconds later."""
    servers = [start_server(root, port)]
    server = Server(port)
    wait_for(lambda: server_answers(server), 180)

    def kill_and_start(_file: Path) -> None:
        wait_for(lambda: bench.is_over() or shown(server) >= 2, 90)
        kill_server(servers[-1])
        time.sleep(3)
        servers.append(start_server(root, port))

    try:
        return bench.run(f"http://127.0.0.1:{port}", kill_and_start)
    finally:
        kill_server(servers[-1])


def shown(server: Server) -> int:
    """How many points of the loss curve the server shows."""
    try:
        return len(server.curve("train/loss"))
    except OSError:  # slower than the client waits
        return 0


STATES: dict[str, Callable[[Bench, int, Path], tuple[float, dict[str, Any], Path]]] = {
    "absent": absent, "slow": slow, "full": full, "refusing": refusing, "gone and back": gone_and_back,
}  # fmt: skip


@contextmanager
def real(root: Path, port: int) -> Iterator[None]:
    """A real `mlflow server` over the database in `root`, answering."""
    process = start_server(root, port)
    try:
        wait_for(lambda: server_answers(Server(port)), 180)
        yield
    finally:
        kill_server(process)


@contextmanager
def _slowed(port: int, behind: int) -> Iterator[None]:
    """A port that forwards connections to another port; answers come back a second late."""

    def carry(source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(delay_s)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                one, _ = listening.accept()
                other = socket.create_connection(("127.0.0.1", behind))
                for pair in ((one, other, 0.0), (other, one, DELAY_S)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)


# ── what is asserted ─────────────────────────────────────────────────────────────────────────────────────────────────


def check(state: str, bench: Bench, plain: tuple[float, dict[str, Any], Path], *, timed: bool = True) -> float:
    """The seconds of a run in this state, compared with `plain`, a run without tracking. Raises AssertionError."""
    port, root = free_port(), Path(tempfile.mkdtemp(dir=bench.root))
    try:
        seconds, summary, file = STATES[state](bench, port, root)
        assert summary["vectors"]["sha256"] == plain[1]["vectors"]["sha256"], f"{state}: other bits"
        most = MAY_TAKE[0] * plain[0] + MAY_TAKE[1]
        assert not timed or seconds <= most, f"{state}: {seconds:.1f} s, {plain[0]:.1f} s without tracking"
        with real(root, port):
            wait_for(lambda: synced(file), 90)
            server = Server(port)
            (run,) = server.runs()
            assert run["info"]["status"] == "FINISHED"
            found = server.curve("train/loss")
            points = {point[0]: point[1] for record in summary["train"]["rounds"] for point in record["points"]}
            assert len(found) == len(points), f"{state}: {len(found)} points told of {len(points)}"
            assert dict(found) == points, f"{state}: missing or doubled"
        return seconds
    finally:
        if os.path.ismount(root):
            subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(root, ignore_errors=True)


def synced(file: Path) -> bool:
    """Whether `w2v sync` says that everything is there; 75 while an earlier run's own process is still at it."""
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", "sync", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 75), done.stdout + done.stderr
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.epochs, options.sentences)
        rows: dict[str, list[float]] = {}
        STATES["a server that is well"] = nothing
        bench.run(None)
        for _ in range(options.repeats):
            plain = bench.run(None)
            rows.setdefault("no tracking", []).append(plain[0])
            for state in STATES:
                rows.setdefault(state, []).append(check(state, bench, plain))
                print(f"{state}: {rows[state][-1]:.2f} s (without: {plain[0]:.2f} s)", flush=True)
        least = statistics.median(rows["no tracking"])
        for state, seconds in rows.items():
            shown = ", ".join(f"{second:.2f}" for second in seconds)
            print(f"| {state} | {statistics.median(seconds):.2f} ({shown}) | {statistics.median(seconds) - least:+.2f} s |")


if __name__ == "__main__":
    main()
