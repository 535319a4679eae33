"""A run that cannot succeed is refused before anything starts, with the exit code for what is missing and a way to go on."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.before_start import ANSWER_S, crowded, refuse_hopeless, refuse_silent
from pipeline.config import Cluster, RunConfig, Train, parse_config
from pipeline.errors import CapacityError, DataError, InputError, ServiceError, UsageError
from pipeline.exchange.host import usable_cores
from pipeline.progress import Progress
from pipeline.run import run


def configured(**sections: dict[str, object]) -> RunConfig:
    return parse_config({"corpus": {"inputs": ["nothing"]}, **sections})


needs_no_gpu = pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is installed here")


@needs_no_gpu
def test_a_gpu_that_is_not_there_is_known_within_two_seconds_and_named_with_the_way_out(tmp_path: Path) -> None:
    """Processor time is measured, which other tests on the machine do not lengthen."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", str(Path(__file__).parents[2] / "configs/gpu.yaml"),
         f"run.workdir={tmp_path / 'work'}"],
        capture_output=True, text=True,
    )  # fmt: skip
    after = os.times()
    assert done.returncode == 69
    assert "train.backend: cupy needs CuPy" in done.stderr
    assert "set train.backend: auto" in done.stderr
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2
    assert not (tmp_path / "work" / "tokens").exists()


@needs_no_gpu
def test_runs_that_do_not_train_or_train_elsewhere_need_no_gpu_here() -> None:
    refuse_hopeless(configured(train={"backend": "cupy"}), trains=False)
    refuse_hopeless(configured(train={"backend": "cupy"}, cluster={"kind": "address", "address": "tcp://host:8786"}), trains=True)
    with pytest.raises(ServiceError, match="cupy"):
        refuse_hopeless(configured(train={"backend": "cupy"}), trains=True)


def test_more_processes_than_memory_has_room_for_are_refused_and_another_clusters_are_not() -> None:
    with pytest.raises(CapacityError, match=r"cluster.n_workers: 10,000,000 processes take at least .* are free here"):
        refuse_hopeless(configured(cluster={"n_workers": 10**7}), trains=False)
    refuse_hopeless(configured(cluster={"n_workers": 1}), trains=False)
    refuse_hopeless(configured(cluster={"kind": "slurm", "n_workers": 10**7}), trains=False)


def test_more_processes_than_cores_are_told_how_long_they_take_to_start() -> None:
    cores = usable_cores()
    assert crowded(Cluster(n_workers=cores)) is None
    assert crowded(Cluster(kind="slurm", n_workers=100 * cores)) is None
    assert f"{50 * cores:,} processes start on" in (told := str(crowded(Cluster(n_workers=50 * cores))))
    assert f"for about 70 s, and gain nothing over {cores}" in told


def test_a_backend_that_the_layers_do_not_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backend: cupy is not read: train\.engine is layers"):
        Train(engine="layers", backend="cupy")


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, extra, section in (
        ("ssh", "ssh", {"options": {"hosts": ["a", "b"]}}), ("slurm", "slurm", {"n_workers": 2}),
        ("kubernetes", "k8s", {"options": {"image": "w2v"}, "insecure": True}),
    ):  # fmt: skip
        wanted = rf"cluster\.kind: {kind} needs a package .*-m pip install -e \S*\[{extra}\]"
        with pytest.raises(ServiceError, match=wanted):
            refuse_hopeless(configured(cluster={"kind": kind} | section), trains=True)


def test_a_slurm_cluster_of_no_workers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kind: slurm needs cluster\.n_workers"):
        Cluster(kind="slurm", options={"queue": "main"})


def test_a_scratch_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"local_directory: .*/missing: not a writable folder"):
        refuse_hopeless(configured(cluster={"options": {"local_directory": str(tmp_path / "missing")}}), trains=True)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"options": {"memory_limits": "1GB"}}, "memory_limits: LocalCluster does not take it; did you mean memory_limit?"),
        ({"options": {"scheduler_kwargs": {"dashbord": True}}}, "scheduler_kwargs.dashbord: Scheduler does not take it; did you "
         "mean dashboard?"),
        ({"kind": "ssh", "options": {"hosts": ["a", "b"], "worker_options": {"nthread": 8}}},
         "worker_options.nthread: Worker does not take it; did you mean nthreads?"),
        ({"kind": "ssh", "options": {"hosts": ["a", "b"], "connect_options": [{}, {"usrname": "ann"}]}},
         "connect_options.usrname: connect does not take it; did you mean username?"),
        ({"kind": "slurm", "n_workers": 2, "options": {"quue": "main"}},
         "quue: SLURMCluster does not take it; did you mean queue?"),
        ({"kind": "slurm", "n_workers": 2, "options": {"scheduler_options": {"interfac": "ib0"}}},
         "scheduler_options.interfac: Scheduler does not take it; did you mean interface?"),
    ],
)  # fmt: skip
def test_a_misspelt_option_is_named_with_the_nearest_in_mappings_too(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"cluster.options.{message}")):
        refuse_hopeless(configured(cluster=section), trains=True)


@pytest.mark.parametrize(
    "section",
    [
        {"options": {"memory_limit": "1GB", "threads_per_worker": 1, "silence_logs": 30, "scheduler_kwargs": {"port": 0}}},
        {"kind": "ssh", "options": {"hosts": ["a", "b"], "worker_options": {"n_workers": 2, "nthreads": 1, "memory_limit": "1GB"},
         "scheduler_options": {"port": 0, "host": "a"}, "connect_options": {"username": "ann", "known_hosts": None, "port": 22}}},
        {"kind": "slurm", "n_workers": 2, "options": {"queue": "main", "cores": 1, "scheduler_options": {"interface": "ib0"}}},
    ],
)  # fmt: skip
def test_options_that_the_clusters_take_are_let_through(section: dict[str, Any]) -> None:
    refuse_hopeless(configured(cluster=section), trains=True)


def test_an_address_that_nobody_answers_is_known_before_the_first_task() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ServiceError, match=rf"{address}: no Dask scheduler answers .*Connection refused.*cluster\.address"):
            refuse_silent(Cluster(kind="address", address=address, wait_s=0.5))
        assert time.monotonic() - began < ANSWER_S
        free.listen()
        with pytest.raises(ServiceError, match=rf"{address}: something listens there, but does not answer as a Dask scheduler"):
            refuse_silent(Cluster(kind="address", address=address, wait_s=0.5))


def test_a_scheduler_that_is_there_is_greeted() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", processes=False, protocol="tcp", host="127.0.0.1") as cluster:
        refuse_silent(Cluster(kind="address", address=cluster.scheduler_address, wait_s=60))


def test_an_address_that_nobody_answers_is_known_before_the_corpus_is_read(tmp_path: Path) -> None:
    config = parse_config({
        "corpus": {"inputs": [str(tmp_path / "missing.txt")]}, "run": {"workdir": str(tmp_path / "work")},
        "tracking": {"enabled": False}, "cluster": {"kind": "address", "address": "tcp://127.0.0.1:9", "wait_s": 0.3},
    })  # fmt: skip
    with pytest.raises(ServiceError, match="no Dask scheduler answers"):
        run(config, progress=Progress(quiet=True))


def test_vectors_that_training_cannot_go_on_from_are_known_before_the_corpus_is_read(tmp_path: Path) -> None:
    (tmp_path / "pretrained.vec").write_text("2 3\none 1 2 3\ntwo 3 2 1\n")
    for name, message in (("pretrained.vec", r"a file, not a folder .* `w2v export .*pretrained\.vec FOLDER -f npy`"),
                          ("gone", "no vectors here")):  # fmt: skip
        config = parse_config({
            "corpus": {"inputs": [str(tmp_path / "missing.txt")]}, "run": {"workdir": str(tmp_path / "work")},
            "tracking": {"enabled": False}, "train": {"start_from": str(tmp_path / name)},
        })  # fmt: skip
        with pytest.raises(InputError, match=rf"train\.start_from: .*{message}"):
            run(config, progress=Progress(quiet=True))


def test_a_set_that_could_not_be_asked_about_is_known_before_the_corpus_is_read(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("not a set\n")
    os.mkfifo(tmp_path / "fifo.txt")
    for key, name, message in (
        ("similarity", "fifo.txt", "cannot read .*not a regular file but a FIFO"), ("analogies", "gone.txt", "No such file"),
        ("similarity", "bad.txt", "expected"),
    ):  # fmt: skip
        config = parse_config({
            "corpus": {"inputs": [str(tmp_path / "missing.txt")]}, "run": {"workdir": str(tmp_path / "work")},
            "tracking": {"enabled": False}, "evaluate": {key: [str(tmp_path / name)]},
        })  # fmt: skip
        with pytest.raises((InputError, DataError), match=rf"evaluate\.{key}: .*{message}"):
            run(config, progress=Progress(quiet=True))
