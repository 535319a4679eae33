"""Small runs use threads of the calling process: the same bits, and nothing heavy is loaded or started."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from pipeline.cluster.choosing import processes_pay
from pipeline.cluster.workers import InProcess
from pipeline.config import RunConfig, parse_config
from pipeline.progress import Progress
from pipeline.run import run
from tests.tiny import tiny_config, write_corpus

MB = 10**6


def config_of(**sections: dict[str, object]) -> RunConfig:
    return parse_config({"corpus": {"inputs": ["x"]}} | sections)


def test_threads_give_the_bits_of_one_thread(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", 2000)
    found = [
        run(
            parse_config(tiny_config(tmp_path / f"threads-{threads}", inputs, tracking={"enabled": False})),
            until="train", workers=InProcess(threads), progress=Progress(quiet=True),
        )["vectors"]["sha256"]
        for threads in (1, 4)
    ]  # fmt: skip
    assert found[0] == found[1]


def test_results_come_in_the_order_of_the_items_whatever_order_they_end_in() -> None:
    seen: list[int] = []

    def slow_first(item: int) -> int:
        time.sleep(0.05 * (3 - item))
        return item * item

    assert InProcess(4).map(slow_first, range(4), label="squares", on_done=seen.append) == [0, 1, 4, 9]
    assert seen == [0, 1, 4, 9]


def test_after_an_error_no_further_item_is_started() -> None:
    begun: list[int] = []
    hold = threading.Event()

    def fail_first(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise ValueError("broken")
        hold.wait(10)

    with pytest.raises(ValueError, match="broken"):
        InProcess(2).map(fail_first, range(50), label="fails")
    hold.set()
    assert len(begun) < 10


@pytest.mark.turns(2, 3, of="machine code")
def test_a_small_run_starts_no_process_opens_no_port_and_loads_neither_dask_nor_pandas(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", 300)
    tree = tiny_config(tmp_path / "work", inputs, tracking={"enabled": False}, publish={"formats": ["word2vec-bin"]})
    tree["cluster"] = {}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    code = """
import json, psutil, sys
ports = []
sys.addaudithook(lambda event, arguments: ports.append(event) if event in ("socket.bind", "socket.connect") else None)
from pipeline.config import load_config
from pipeline.progress import Progress
from pipeline.run import run
run(load_config(sys.argv[1]), progress=Progress(quiet=True))
heavy = ["bokeh", "dask", "distributed", "mlflow", "pandas", "tornado"]
print(json.dumps({"loaded": [name for name in heavy if name in sys.modules],
                  "children": len(psutil.Process().children(recursive=True)), "ports": ports}))
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "small.yaml")], capture_output=True, text=True, timeout=200
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {"loaded": [], "children": 0, "ports": []}


@pytest.mark.turns(5, 7, of="machine code")
def test_a_run_whose_code_is_on_disk_loads_nothing_that_only_compiling_needs(tmp_path: Path) -> None:
    inputs = write_corpus(tmp_path / "corpus", 300)
    tree = tiny_config(tmp_path / "work", inputs, tracking={"enabled": False}, cluster={}, train={"lanes": 2})
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    code = """
import sys
from pipeline.config import load_config
from pipeline.progress import Progress
from pipeline.run import run
from numba.core import event
compiled = event.RecordingListener()
event.register("numba:compile", compiled)
run(load_config(sys.argv[1], [f"run.workdir={sys.argv[2]}"]), progress=Progress(quiet=True))
print(bool(compiled.buffer), "numba.cpython.unicode" in sys.modules)
"""
    for workdir in ("first", "second"):
        command = [sys.executable, "-c", code, str(tmp_path / "small.yaml"), str(tmp_path / workdir)]
        compiles, prepared = subprocess.check_output(command, text=True).split()
        if compiles == "False":
            break
    assert (compiles, prepared) == ("False", "False")


@pytest.mark.parametrize(
    ("pays", "megabytes", "cores", "sections"),
    [
        (False, 12, 2, {}),
        (False, 100, 2, {}),
        (True, 3000, 2, {}),
        (True, 1500, 2, {"train": {"model": "skipgram"}}),
        (False, 1, 8, {"tokenize": {"tokenizer": "mine:factory"}}),
        (True, 12, 8, {"tokenize": {"tokenizer": "mine:factory"}}),
        (False, 12, 1, {"tokenize": {"tokenizer": "mine:factory"}}),
        (True, 1, 2, {"cluster": {"n_workers": 1}}),
        (True, 1, 2, {"cluster": {"options": {"memory_limit": "2GB"}}}),
    ],
)
def test_processes_are_used_for_much_work_for_python_code_and_when_asked_for(
    pays: bool, megabytes: int, cores: int, sections: dict[str, dict[str, object]]
) -> None:
    assert processes_pay(config_of(**sections), megabytes * MB, 0, cores) is pays


def test_compressed_text_counts_as_what_it_becomes() -> None:
    config = config_of(tokenize={"tokenizer": "mine:factory"})
    assert not processes_pay(config, 3 * MB, 0, 2)
    assert processes_pay(config, 3 * MB, 3 * MB, 2)
