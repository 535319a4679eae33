"""What programs and the people who write them may do with `train`, `load` and models, beyond what test_library.py has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dask import delayed

import pipeline
from pipeline.errors import ConfigError, DataError, InputError

SENTENCES = [[f"topic{topic}word{word}" for word in range(topic, topic + 6)] for topic in range(8)] * 20
SETTINGS: dict[str, Any] = {"vector_size": 8, "epochs": 2, "min_count": 1, "progress": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Model:
    return pipeline.train(SENTENCES, workdir=tmp_path_factory.mktemp("model") / "run", **SETTINGS)


def test_a_program_may_change_its_folder_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = pipeline.train(SENTENCES, name="moving", callbacks=lambda _: os.chdir("/"), **SETTINGS)
    assert found.directory.is_relative_to(tmp_path / "runs" / "moving")


def test_options_of_reading_hold_for_a_run_as_for_a_file(model: pipeline.Model) -> None:
    workdir = model.directory.parents[1]
    read = pipeline.load(workdir, limit=3, datatype=np.float64)
    assert (len(read), read.wv.vectors.dtype, read.summary["run_id"]) == (3, np.float64, model.summary["run_id"])
    with pytest.raises(ValueError, match=r"datatype: expected float32, .* found int8"):
        pipeline.load(workdir, datatype="int8")
    with pytest.raises(TypeError, match="limits"):
        pipeline.load(workdir, limits=3)


@pytest.mark.parametrize("nested", [False, True], ids=["the folder itself", "a folder in it"])
def test_a_refused_run_leaves_nothing_in_the_corpus(nested: bool, tmp_path: Path) -> None:
    corpus = tmp_path / "texts"
    corpus.mkdir()
    (corpus / "a.txt").write_text("\n".join(" ".join(sentence) for sentence in SENTENCES))
    for pattern in (str(corpus), str(tmp_path / "**" / "*")):
        with pytest.raises(ConfigError, match="output inside input"):
            pipeline.train(pattern, workdir=corpus / "run" if nested else corpus, **SETTINGS)
    for pattern in (str(corpus / "*"), str(corpus / "a.txt")) if not nested else ():
        with pytest.raises(ConfigError, match=f"{re.escape(pattern)} lies inside run.workdir .*: input inside output"):
            pipeline.train(pattern, workdir=corpus, **SETTINGS)
    assert [path.name for path in corpus.rglob("*")] == ["a.txt"]
    found = pipeline.train(corpus, workdir=tmp_path / "run", **SETTINGS)
    assert (found.summary["corpus"]["files"], len(found)) == (1, len({word for sentence in SENTENCES for word in sentence}))


def test_names_of_fasttext_are_told_by_what_they_are_here(model: pipeline.Model) -> None:
    for name, instead in (("get_word_vector", "get_vector"), ("get_nearest_neighbors", "most_similar"), ("wards", None)):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'" + (f"; it is {instead}" if instead else "$")):
            getattr(model, name)


def test_a_truth_value_is_no_row_and_an_empty_model_no_endless_loop(model: pipeline.Model) -> None:
    for ask in (model.__getitem__, model.most_similar, lambda key: model.similarity(key, 0)):
        with pytest.raises(TypeError, match=r"found True|found bool"):
            ask(True)
    assert True not in model
    assert True not in model.wv
    with pytest.raises(AttributeError):
        _ = pipeline.Model.__new__(pipeline.Model).vectors


@pytest.mark.parametrize(
    ("source", "settings", "error", "message"),
    [
        (SENTENCES, {"inputs": ["more.txt"]}, ConfigError, "sentences and paths are the first argument; give all of them there"),
        ("a.txt", {"corpus": {"inputs": ["b.txt"]}}, ConfigError, "the first argument; give all of them there"),
        (None, {"corpus_iterable": SENTENCES}, ConfigError, "corpus_iterable: .* sentences and paths are the first argument"),
        (SENTENCES, {"verbose": 2}, ConfigError, "verbose: .* there is no such setting here"),
        ([delayed(list)("ab")], {}, DataError, r"sentence 0: .* yet to compute \(Delayed\w*\); pass what its compute"),
        (pd.DataFrame({"text": ["a b"], "group": 1}).groupby("group"), {}, DataError, r"sentence 0: expected words, found .*1"),
    ],
)
def test_what_would_be_ignored_or_misread_is_refused(
    source: Any, settings: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pipeline.train(source, workdir=tmp_path / "run", **SETTINGS | settings)


def test_a_value_on_a_cluster_is_refused_with_the_way_to_it(tmp_path: Path) -> None:
    from distributed import Client

    with Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") as client:
        value = client.submit(list, "ab")
        for source in (value, [value]):
            with pytest.raises((DataError, InputError), match=r"\(Future\).*; pass what its result\(\) returns"):
                pipeline.train(source, workdir=tmp_path / "run", **SETTINGS)


def test_an_answer_is_given_where_messages_cannot_be_written(model: pipeline.Model) -> None:
    command = [Path(sys.executable).with_name("w2v"), "query", "similar", model.directory.parents[1], model.wv.words[0]]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, timeout=60, check=False)
    assert (done.returncode, model.most_similar(0, topn=1)[0][0] in done.stdout.decode()) == (0, True)


def test_groups_of_a_data_frame_are_refused_as_no_sentences(tmp_path: Path) -> None:
    """Their attribute `dropna` is no method, unlike that of a column."""
    groups = pd.DataFrame({"who": ["a", "b", "a"], "text": ["x y z", "y z", "z x"]}).groupby("who")
    for grouped in (groups, groups["text"]):
        with pytest.raises(DataError, match=r"sentence 0: expected words, found [^$]*\((Series|DataFrame)\)"):
            pipeline.train(grouped, workdir=str(tmp_path), vector_size=4)
