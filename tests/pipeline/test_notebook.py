"""In a notebook: training in a real kernel shows one bar, which ends with its cell, and an interrupt leaves nothing behind.

`make notebook` runs these tests with a kernel; without one the example's code still runs, as a program.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "in_a_notebook.ipynb"
WAIT_S = 200
Messages = list[tuple[str, dict[str, Any]]]
WORDS = "import random\nrng = random.Random(3)\nsentences = [[f'w{rng.randrange(200)}' for _ in range(12)] for _ in range(2000)]"


def cells() -> list[str]:
    """The code cells of the example."""
    found = json.loads(EXAMPLE.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


class Notebook:
    """A kernel of Jupyter's, run by the Python that runs the tests, and a client of it, in a folder."""

    def __init__(self, folder: Path) -> None:
        client = pytest.importorskip("jupyter_client", reason="no kernel here; make notebook brings one")
        pytest.importorskip("ipykernel", reason="no kernel here; make notebook brings one")
        self.manager = client.KernelManager()
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=WAIT_S)

    def run(self, code: str, interrupt_at: str | None = None) -> Messages:
        """(kind, content) of what the kernel sends until the cell has ended, interrupted when a message holds `interrupt_at`."""
        cell, messages = self.client.execute(code), []
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            message = self.client.get_iopub_msg(timeout=WAIT_S)
            assert message["parent_header"]["msg_id"] == cell, "shown below another cell"
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return messages
            messages.append((kind, content))
            if interrupt_at and interrupt_at in str(content):
                self.manager.interrupt_kernel()
                interrupt_at = None
        raise TimeoutError(f"the cell did not end: {messages[-3:]}")

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    found = Notebook(tmp_path)
    yield found
    found.close()


def of_kind(messages: Messages, kind: str) -> list[dict[str, Any]]:
    return [content for found, content in messages if found == kind]


def texts(messages: Messages) -> list[str]:
    """What was shown in HTML, in order, after checking that all of it was shown in one place."""
    shown = [content for kind, content in messages if kind in ("display_data", "update_display_data")]
    assert len({content["transient"]["display_id"] for content in shown}) == len(of_kind(messages, "display_data")) == 1
    return [content["data"]["text/html"] for content in shown]


def test_the_example_runs_in_a_kernel(notebook: Notebook) -> None:
    done = [notebook.run(code) for code in cells()]
    assert [content for messages in done for content in of_kind(messages, "error")] == []
    trained = texts(done[1])
    assert any("<progress" in text for text in trained)
    assert "<progress" not in trained[-1]
    assert "publish: 1 format" in trained[-1]
    assert of_kind(done[1], "stream") == []
    (model,) = of_kind(done[1], "execute_result")
    assert "<table>" in model["data"]["text/html"]
    assert "words × 64" in model["data"]["text/plain"]
    printed = "".join(stream["text"] for stream in of_kind(done[3], "stream"))
    assert [line[:7] for line in printed.splitlines()] == ["epoch 1", "epoch 2"]


LEFT = """\
import psutil, threading
[psutil.Process().children(), [thread for thread in threading.enumerate() if thread.name == "progress"]]
"""
LONG = """\
import time
from pipeline import train

def pause(done):
    print("trained epoch", done.epoch + 1)
    time.sleep(0.2)

len(train(sentences, vector_size=32, epochs=20, sample=0, checkpoint_every=12_000, callbacks=pause))
"""
SLOWLY = """\
import time
from pipeline import train

def slowly():
    yield sentences[0]
    time.sleep(2.5)
    yield from sentences

async def main():
    return train(slowly(), vector_size=8, epochs=1)

await main()
"""


def test_an_interrupted_cell_leaves_no_process_and_the_same_cell_goes_on(notebook: Notebook) -> None:
    notebook.run(WORDS)
    interrupted = notebook.run(LONG, interrupt_at="trained epoch 3")
    assert [content["ename"] for content in of_kind(interrupted, "error")] == ["KeyboardInterrupt"]
    assert texts(interrupted)[-1].endswith("interrupted; the same call continues from what is complete<br>")
    assert of_kind(notebook.run(LEFT), "execute_result")[0]["data"]["text/plain"] == "[[], []]"
    again = notebook.run(LONG)
    assert of_kind(again, "execute_result")[0]["data"]["text/plain"] == "200"
    assert "epoch 1 of 20" not in "".join(texts(again))


def test_the_bar_moves_while_sentences_come_slowly_and_a_coroutine_can_train(notebook: Notebook) -> None:
    notebook.run(WORDS)
    assert len({text for text in texts(notebook.run(SLOWLY)) if text.startswith("sentences")}) >= 3


@pytest.mark.turns(5, 4, of="readers")
def test_the_example_runs_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("\n".join(cells()), encoding="utf-8")
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("epoch 1: loss ")
