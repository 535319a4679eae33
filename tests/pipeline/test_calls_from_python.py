"""`train` as programs call it: what it accepts, refuses and leaves as it was."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

import pipeline
from pipeline.errors import ConfigError, DataError, InputError, UsageError
from w2v_core.vectors import WordVectors

LINES = ["the river flows by the town", "a town by the river"] * 40
SMALL: dict[str, Any] = {"vector_size": 4, "epochs": 1, "min_count": 1, "progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return pipeline.train(LINES, workdir=workdir, publish={"formats": ["npy"]}, **SMALL)


def test_what_is_not_given_may_be_given_as_none(trained: Any, tmp_path: Path) -> None:
    sections = dict.fromkeys(("corpus", "train", "tracking", "cluster", "storage", "evaluate"))
    none = {"callbacks": None, "client": None, "start_from": None, "workdir": None}
    with contextlib.chdir(tmp_path):
        model = pipeline.train(LINES, **(SMALL | none | sections))
    assert model.summary["vectors"]["sha256"] == trained.summary["vectors"]["sha256"]
    assert not model.summary["mlflow"]["uri"]


@pytest.mark.parametrize(
    "kind",
    ["pandas' chunks", "batches of Arrow", "a dataset of Arrow", "a file of Parquet"],
)
def test_tables_that_come_one_at_a_time_are_one_table(kind: str, trained: Any, tmp_path: Path) -> None:
    table = pa.table({"text": LINES, "number": range(len(LINES))})
    pd.DataFrame({"text": LINES}).to_csv(tmp_path / "table.csv")
    pyarrow.parquet.write_table(table, tmp_path / "table.parquet")
    readers: dict[str, Callable[[], Any]] = {
        "pandas' chunks": lambda: pd.read_csv(tmp_path / "table.csv", chunksize=7),
        "batches of Arrow": lambda: iter(table.to_batches(7)),
        "a dataset of Arrow": lambda: pyarrow.dataset.dataset(tmp_path / "table.parquet"),
        "a file of Parquet": lambda: pyarrow.parquet.ParquetFile(tmp_path / "table.parquet"),
    }
    model = pipeline.train(readers[kind](), workdir=tmp_path / "run", **SMALL)
    assert model.summary["vectors"]["sha256"] == trained.summary["vectors"]["sha256"]


def broken() -> Iterator[list[str]]:
    yield ["a", "b"]
    raise LookupError("mine")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([b"a b"], DataError, r"found bytes; decode\(\) makes text of it"),
        ([[b"a"]], DataError, r"found b'a' \(bytes\); decode\(\) makes text of it"),
        ([[1, 2]], DataError, r"found 1 \(int\); str\(\) makes text of it"),
        ([[np.int64(1)]], DataError, r"found np.int64\(1\) \(int64\); str\(\) makes text of it"),
        ([pa.scalar("a b")], DataError, r"found StringScalar; str\(\) makes text of it"),
        ([{"text": "a b"}], DataError, r"found dict; give the text in it: \(record\['text'\] for record in …\)"),
        ([], InputError, "no sentences to train on"),
        (None, InputError, "found NoneType"),
        (pd.DataFrame({"body": ["a b"]}), InputError, "no column 'text'"),
    ],
)
def test_what_holds_no_sentences_is_refused_with_a_way_out_and_leaves_nothing(
    source: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pipeline.train(source, workdir=tmp_path / "run", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_generator_comes_out_as_it_is_and_empty_sentences_are_called_so(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        pipeline.train(broken(), workdir=tmp_path / "run", **SMALL)
    for empty in ([[], []], ["", " "]):
        with pytest.raises(InputError, match="no word to train on: all sentences are empty"):
            pipeline.train(empty, workdir=tmp_path / "run", **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tokenizer": str.split},
            r"tokenizer: .* found <method 'split' .*; name one, 'package\.module:factory', or split",
        ),
        ({"name": str}, r"name: expected a value that can be written in a file, found <class 'str'>$"),
        ({"refresh": {}}, "refresh: only `w2v refresh` reads these settings"),
    ],
)
def test_settings_that_no_file_could_hold_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline.train(LINES, **({"workdir": tmp_path / "run"} | settings))


def test_training_goes_on_from_exported_vectors(trained: Any, tmp_path: Path) -> None:
    exported = Path(trained.summary["exports"]["npy"][0]).parent
    model = pipeline.train(LINES, start_from=exported, workdir=tmp_path / "run", **SMALL)
    assert model.losses[0] < trained.losses[0]


def test_what_training_cannot_go_on_from_says_what_it_can_go_on_from(trained: Any, tmp_path: Path) -> None:
    latest = trained.directory.parents[1] / "latest"
    with pytest.raises(InputError, match=r"latest: a complete result, .*; its vectors are in (.*)$") as caught:
        pipeline.train(LINES, start_from=latest, workdir=tmp_path / "run", **SMALL)
    named = Path(str(caught.value).rpartition(" in ")[2])
    assert len(WordVectors.load(named)) == len(trained)
    for vectors in (trained.wv, trained.to_gensim()):
        with pytest.raises(UsageError, match=rf"found {type(vectors).__name__}; WordVectors\(.*\)\.save\(folder\)"):
            pipeline.train(LINES, start_from=vectors, workdir=tmp_path / "run", **SMALL)
        WordVectors(vectors.index_to_key, vectors.vectors).save(tmp_path / "folder")
        pipeline.train(LINES, start_from=tmp_path / "folder", workdir=tmp_path / "run", **SMALL)


@pytest.mark.turns(5, 6, of="readers")
def test_processes_for_a_training_leave_the_environment_of_the_program_as_it_was(trained: Any, tmp_path: Path) -> None:
    before = dict(os.environ)

    def set_one(record: object) -> None:
        os.environ["SET_MEANWHILE"] = "1"

    try:
        model = pipeline.train(LINES, cluster={"n_workers": 1}, callbacks=set_one, workdir=tmp_path / "run", **SMALL)
        assert os.environ.pop("SET_MEANWHILE") == "1"
        assert dict(os.environ) == before
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert model.summary["vectors"]["sha256"] == trained.summary["vectors"]["sha256"]


def test_a_cluster_in_the_place_of_a_client_is_told_how_it_becomes_one() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        pytest.raises(UsageError, match=r"found LocalCluster; Client\(cluster\) makes one of a cluster"),
    ):
        pipeline.train(LINES, client=cluster, **SMALL)  # type: ignore[arg-type]


def test_a_program_that_its_own_processes_run_again_trains_once_and_is_told_where_a_guard_belongs(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import multiprocessing\n"
        "from pipeline import train\n"
        f"print(train([['a', 'b', 'c']] * 40, workdir={str(tmp_path / 'run')!r}, min_count=1))\n"
        "child = multiprocessing.get_context('spawn').Process(target=print, args=('never',))\n"
        "child.start()\n"
        "child.join()\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=200)
    assert done.stdout.count("<Model:") == 1
    assert done.stderr.rstrip().endswith('and those after them under if __name__ == "__main__":')


def test_completion_finds_what_is_imported_on_first_use() -> None:
    code = "import sys, pipeline; print({'train', 'load', 'Model'} <= set(dir(pipeline)), 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["True", "False"]


def test_a_model_is_iterated_over_its_words_in_both_directions(trained: Any) -> None:
    assert list(reversed(trained)) == list(trained)[::-1] == trained.index_to_key[::-1]
    for name in ("layer1_size", "compute_loss", "callbacks", "workers"):
        with pytest.raises(AttributeError, match=f"a Model has no {name}; .{{10}}"):
            getattr(trained, name)
