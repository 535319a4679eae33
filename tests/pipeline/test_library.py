"""From Python: in whatever form the sentences are given, the vectors are those of `w2v run`; a script needs no guard."""

from __future__ import annotations

import contextlib
import copy
import gzip
import os
import pickle
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from dask import bag, delayed

import pipeline
from pipeline.commands.listed import commands
from pipeline.commands.vectors import find_vectors
from pipeline.errors import BusyError, ConfigError, DataError, InputError, UsageError
from pipeline.library.sentences import in_order, sentences_of
from pipeline.library.settings import configuration, overriding
from tests.tiny import write_corpus

SETTINGS: dict[str, Any] = {"vector_size": 16, "epochs": 2, "min_count": 2, "sample": 1e-2, "seed": 3}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The sentences of a small corpus as text."""
    paths = write_corpus(tmp_path_factory.mktemp("corpus"), 600)
    texts = [gzip.decompress(data) if path.endswith(".gz") else data for path in paths for data in [Path(path).read_bytes()]]
    return b"".join(texts).decode().splitlines()


@pytest.fixture(scope="module")
def digest(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the vectors trained on a file of these sentences."""
    folder = tmp_path_factory.mktemp("file")
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n")
    model = pipeline.train(folder / "corpus.txt", workdir=str(folder / "run"), tokenizer="whitespace", **SETTINGS)
    return str(model.summary["vectors"]["sha256"])


def sources(lines: list[str]) -> dict[str, Any]:
    table = pa.table({"text": pa.chunked_array([lines[:200], lines[200:]], pa.string())})
    return {
        "lists of words": [line.split() for line in lines],
        "a generator": (tuple(line.split()) for line in lines),
        "lines of text": iter(lines),
        "an Arrow table": table,
        "a batch of Arrow": pa.record_batch({"text": lines}),
        "a reader of Arrow": table.to_reader(),
        "a column of Arrow": table["text"],
        "an array of Arrow": pa.array(lines),
        "a data frame": pd.DataFrame({"other": range(len(lines) + 1), "text": [None, *lines]}),
        "a column of a data frame": pd.Series([float("nan"), *lines]),
        "a column of Arrow with a null": pa.array([None, *lines]),
        "an array of NumPy": np.array(lines),
    }


@pytest.mark.parametrize("kind", list(sources([])))
def test_sentences_in_memory_give_the_vectors_of_a_file(kind: str, lines: list[str], digest: str, tmp_path: Path) -> None:
    model = pipeline.train(sources(lines)[kind], workdir=str(tmp_path / "run"), **SETTINGS)
    assert model.summary["vectors"]["sha256"] == digest


def test_a_column_of_another_name_and_lists_of_words_in_a_column(lines: list[str], digest: str, tmp_path: Path) -> None:
    table = pa.table({"body": [line.split() for line in lines]})
    model = pipeline.train(table, text_field="body", workdir=str(tmp_path / "run"), **SETTINGS)
    assert model.summary["vectors"]["sha256"] == digest


def test_settings_and_sections_go_before_those_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("corpus: {inputs: [x.jsonl], format: jsonl}\ntrain: {epochs: 7, alpha: 0.02}\n")
    settings = {
        "epochs": 2,
        "text_field": "body",
        "workdir": tmp_path / "run",
        "cluster": {"n_workers": 3, "options": {"a": [1]}},
    }
    found = overriding(str(tmp_path / "c.yaml"), settings)
    assert (found.train.epochs, found.train.alpha, found.corpus.text_field) == (2, 0.02, "body")
    assert (found.cluster.n_workers, found.cluster.options, found.workdir) == (3, {"a": [1]}, tmp_path / "run")
    assert found.tracking.enabled
    assert not overriding(str(tmp_path / "c.yaml"), {"tracking": {"enabled": False}}).tracking.enabled


def test_runs_are_tracked_where_a_setting_of_tracking_is_given() -> None:
    givens: list[dict[str, Any]] = [{}, {"experiment": "e"}, {"tracking": {"enabled": False}}]
    assert [configuration(["x"], given).tracking.enabled for given in givens] == [False, True, False]


def test_patterns_and_names_of_files_in_a_list_are_paths(lines: list[str], digest: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n".join(lines) + "\n")
    with contextlib.chdir(tmp_path):
        model = pipeline.train(["corp*.txt"], workdir="run", tokenizer="whitespace", **SETTINGS)
        assert model.summary["vectors"]["sha256"] == digest
        for missing in (["corpus.txt", "missing.txt"], ["missing.txt"], ["texts/*"]):
            with pytest.raises(InputError, match=r"no file matches (missing\.txt|texts/\*)"):
                pipeline.train(missing, workdir="other", **SETTINGS)


def test_files_that_an_iterator_or_a_set_names_are_read_instead_of_their_names(
    lines: list[str], digest: str, tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "b.txt").write_text("\n".join(lines[200:]) + "\n")
    (tmp_path / "texts" / "a.txt").write_text("\n".join(lines[:200]) + "\n")
    names = [str(path) for path in sorted((tmp_path / "texts").iterdir())]
    for number, source in enumerate(((tmp_path / "texts").glob("*.txt"), iter(names), set(names), dict.fromkeys(names).keys())):
        model = pipeline.train(source, workdir=str(tmp_path / f"run-{number}"), tokenizer="whitespace", **SETTINGS)
        assert model.summary["corpus"]["files"] == 2
        assert model.summary["corpus"]["sentences"] == len(lines)


def test_a_set_of_sentences_is_read_in_the_order_of_the_alphabet() -> None:
    lines = {f"{word} and {word}" for word in "zyxabc"}
    assert in_order(lines) == sorted(lines)
    assert list(in_order(iter(["a.txt", "a line"]))) == ["a.txt", "a line"]


def test_sentences_are_not_replaced_while_a_run_reads_them(lines: list[str], digest: str, tmp_path: Path) -> None:
    def second(record: object) -> None:
        with pytest.raises(BusyError, match="another run is working here"):
            pipeline.train(["other words"] * 99, workdir=str(tmp_path / "run"), **SETTINGS)

    model = pipeline.train(lines, workdir=str(tmp_path / "run"), callbacks=second, **SETTINGS)
    assert model.summary["vectors"]["sha256"] == digest
    assert pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS).summary["stages"]["tokenize"]["cached"]


def test_an_error_of_a_callback_comes_out_as_it_is(lines: list[str], tmp_path: Path) -> None:
    def fails(record: object) -> None:
        raise LookupError("mine")

    for _ in range(2):  # the second time with results of the first
        with pytest.raises(LookupError, match=r"^'mine'$|^mine$"):
            pipeline.train(lines, workdir=str(tmp_path / "run"), callbacks=[fails], **SETTINGS)
    assert len(pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS).losses) == 2


def test_completion_finds_the_methods_of_the_vectors(lines: list[str], tmp_path: Path) -> None:
    model = pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS)
    assert {"most_similar", "doesnt_match", "key_to_index", "to_gensim", "losses"} <= set(dir(model))
    assert len(pickle.loads(pickle.dumps(model))) == len(copy.copy(model)) == len(model)
    assert list(model) == model.index_to_key
    assert model.summary["config"]["train"]["epochs"] == 2
    assert model.summary["corpus"]["sentences"] == len(lines)
    for name, instead in [
        ("train", r"pipeline\.train\("),
        ("get_latest_training_loss", "losses"),
        ("epochs", r"summary\['config'\]"),
    ]:
        with pytest.raises(AttributeError, match=f"a Model has no {name}; .*{instead}"):
            getattr(model, name)


def test_a_dask_bag_is_read_a_partition_at_a_time(lines: list[str], digest: str, tmp_path: Path) -> None:
    import dask

    with dask.config.set(scheduler="synchronous"):
        found = bag.from_sequence(lines, npartitions=5).map(str.split)
        model = pipeline.train(found, workdir=str(tmp_path / "run"), **SETTINGS)
    assert model.summary["vectors"]["sha256"] == digest


def test_partitions_of_a_bag_are_computed_side_by_side_on_a_cluster_and_read_in_order() -> None:
    from distributed import Client, Event

    def wait_for(other: int, sentences: list[str]) -> list[str]:
        Event(f"begun {1 - other}").set()
        if not Event(f"begun {other}").wait(30):
            raise TimeoutError("the partitions are computed one after another")
        return sentences

    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"):
        first, second = (bag.from_sequence([f"a b {n}"], npartitions=1).map_partitions(partial(wait_for, 1 - n)) for n in (0, 1))
        assert list(sentences_of(bag.concat([first, second]), "text")) == ["a b 0", "a b 1"]


def test_after_a_partition_that_fails_the_cluster_keeps_none_of_those_computed_ahead(tmp_path: Path) -> None:
    from distributed import Client

    def fail_at_2(number: int) -> list[str]:
        if number == 2:
            raise LookupError("partition 2")
        return [f"a b {number}"]

    failing = bag.from_delayed([delayed(fail_at_2)(number) for number in range(9)])
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0") as client:
        with pytest.raises(LookupError, match="partition 2") as caught:
            list(sentences_of(failing, "text"))
        deadline = time.monotonic() + 30
        while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            assert time.monotonic() < deadline, f"kept while the error {caught.value} is known"
            time.sleep(0.05)
    with pytest.raises(UsageError, match="connected to its scheduler, found one that is closed"):
        pipeline.train(["a b"], client=client, workdir=str(tmp_path / "run"))


def test_the_same_call_again_finds_what_is_done_and_callbacks_see_every_round(lines: list[str], tmp_path: Path) -> None:
    rounds: list[int] = []
    for expected in ([False] * 6, [True] * 6):
        model = pipeline.train(lines, workdir=str(tmp_path / "run"), callbacks=[lambda at: rounds.append(at.round)], **SETTINGS)
        assert [row["cached"] for row in model.summary["stages"].values()] == expected
    assert rounds == [0, 1]
    assert len(model.losses) == 2


@pytest.mark.turns(3, 4, of="readers")
def test_a_model_is_found_by_its_workdir_its_folder_and_its_files_and_goes_to_gensim(lines: list[str], tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    model = pipeline.train(lines, workdir=str(tmp_path / "run"), publish={"formats": ["word2vec-bin"]}, **SETTINGS)
    for place in (tmp_path / "run", model.directory, model.summary["exports"]["word2vec-bin"][0]):
        found = pipeline.load(place)
        np.testing.assert_array_equal(found.wv.vectors, model.wv.vectors)
        assert "topic1word1" in found
        assert found.most_similar("topic1word1", topn=3) == model.most_similar("topic1word1", topn=3)
    assert pipeline.load(tmp_path / "run" / "latest").losses == pipeline.load(tmp_path / "run").losses == model.losses
    assert pipeline.load(model.directory).summary == {}
    keyed = model.to_gensim()
    assert isinstance(keyed, KeyedVectors)
    np.testing.assert_array_equal(keyed["topic1word1"], model["topic1word1"])
    assert keyed.get_vecattr("topic1word1", "count") == model.get_vecattr("topic1word1", "count")
    assert f"{len(model):,} words × 16" in model._repr_html_()


def test_commands_take_the_workdir_of_a_model_and_its_latest_result(lines: list[str], tmp_path: Path) -> None:
    pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS)
    for source in (tmp_path / "run", tmp_path / "run" / "latest"):
        asked = CliRunner().invoke(commands, ["query", "similar", str(source), "topic1word1", "-n", "3"], standalone_mode=False)
        assert asked.exception is None
        assert len(asked.stdout.splitlines()) == 4
        says_which = "" if source.name == "latest" else r"from word2vec-\w+ of \d{4}-\d\d-\d\d \d\d:\d\d \S+\n"
        assert re.fullmatch(says_which, asked.stderr)
    with pytest.raises(UsageError, match=r"--limit is for files of vectors, and .* is a workdir"):
        find_vectors(tmp_path / "run", limit=3)


def test_a_place_without_vectors_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither a finished run nor vectors in this folder: '.*'"):
        pipeline.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: '.*missing'"):
        pipeline.load(tmp_path / "missing")


def test_training_goes_on_from_a_model(lines: list[str], tmp_path: Path) -> None:
    first = pipeline.train(lines, workdir=str(tmp_path / "first"), **SETTINGS)
    second = pipeline.train(lines, workdir=str(tmp_path / "second"), start_from=first, **SETTINGS)
    assert second.losses[0] < first.losses[0]
    some = pipeline.load(tmp_path / "first", limit=3)
    with pytest.raises(UsageError, match=rf"start_from: the model has 3 of the {len(first)} words in .* load it without limit"):
        pipeline.train(lines, workdir=str(tmp_path / "third"), start_from=some, **SETTINGS)


@pytest.mark.turns(3, 1.5, of="readers")
def test_a_programs_own_client_does_the_work_and_stays_open(lines: list[str], digest: str, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    # Threads of this process are this program's own workers: their tasks show in the scheduler's record.
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        model = pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS)
        assert model.summary["vectors"]["sha256"] == digest
        assert client.status == "running"
        assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.task_prefixes)) > 0


@pytest.mark.turns(5, 6, of="readers")
def test_a_script_without_a_guard_trains_in_processes_too(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "from pipeline import train\n"
        "print('once')\n"
        f"model = train([['a', 'b', 'c']] * 400, workdir={str(tmp_path / 'run')!r}, cluster={{'n_workers': 1}})\n"
        "print(len(model))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["once", "3"]


@pytest.mark.parametrize(
    ("source", "settings", "error", "message"),
    [
        (["a b"], {"sg": 1}, ConfigError, r"sg: unknown setting; here it is model=skipgram"),
        (["a b"], {"size": 3}, ConfigError, r"size: unknown setting; did you mean vector_size\?"),
        (["a b"], {"hs": 1}, ConfigError, r"hs: unknown setting; there is no such setting here: .* \(negative\)"),
        (["a b"], {"corpus_file": "x"}, ConfigError, r"corpus_file: unknown setting; sentences and paths are the first argument"),
        (["a b"], {"callbacks": [3]}, UsageError, r"callbacks: expected functions .* found int"),
        (["a b"], {"callbacks": 3}, UsageError, r"callbacks: expected functions .* found int"),
        ("a b\nc d", {}, InputError, r"a text with several lines is no path; for lines of text: train\(text.splitlines\(\)\)"),
        (bag.from_sequence([["a", "b"]]).count(), {}, InputError, r"found a single value \(Item\); pass what its compute"),
        (delayed(list)("ab"), {}, InputError, r"found a single value \(Delayed\w*\); pass what its compute"),
        (pd.DataFrame([["a", "b"]], columns=["text"] * 2), {}, InputError, r"2 columns 'text'; rename all but the one to read"),
        (
            ["a b"],
            {"client": "tcp://127.0.0.1:1"},
            UsageError,
            r"client: expected a Client .* found str; .*'address'",
        ),
        (["a b"], {"tracking": True}, ConfigError, r"tracking: expected settings, such as tracking=\{'enabled': …\}, found True"),
        (["a b"], {"cluster": "local"}, ConfigError, r"cluster: expected settings, such as cluster=\{'kind': …\}, found 'local'"),
        (["a b"], {"start_from": 5}, UsageError, r"start_from: expected a model of train\(\) .* found int"),
        (None, {"sentences": ["a b"]}, ConfigError, r"sentences: .* sentences and paths are the first argument"),
        (["a b"], {"workdir": __file__}, ConfigError, r"run\.workdir: .*test_library\.py is a file, and a run needs a folder"),
        (["a b"], {"options": {}}, ConfigError, r"options: several sections .* tokenize=\{'options': …\} or cluster="),
        ([], {}, InputError, "no sentences to train on"),
        ([["a", 7]], {}, DataError, r"sentence 0: expected words, found 7 \(int\)"),
        ([["a", "b c"]], {}, DataError, r"sentence 0: expected words without white space and NUL, found 'b c'"),
        ([["a", "b\0c"]], {}, DataError, r"sentence 0: expected words without white space and NUL, found 'b\\x00c'"),
        ([["a", "\ud800"]] * 2, {}, DataError, "is not UTF-8 and would be lost"),
        ([["a"], "b c"], {}, DataError, r"sentence 1: expected a sequence of words like the first, found str"),
        ([b"a b"], {}, DataError, r"sentence 0: expected a sequence of words or a line of text, found bytes"),
        ([["a"], None], {}, DataError, r"sentence 1: expected a sequence of words like the first, found NoneType"),
        ([None, ["a"]], {}, DataError, r"sentence 0: expected a sequence of words or a line of text, found NoneType"),
        ([{"text": "a b"}], {}, DataError, r"sentence 0: .*, found dict"),
        ({"text": ["a b"]}, {}, InputError, "found dict"),
        (b"a b", {}, InputError, "found bytes"),
        (lambda: ["a b"], {}, InputError, "found function; pass what it returns"),
        (pa.table({"text": [1, 2]}), {}, DataError, r"sentence 0: .*, found int"),
        (pd.DataFrame({"body": ["a b"]}), {}, InputError, r"the table has no column 'text', it has body; give text_field"),
        (pd.DataFrame({"Text": ["a b"]}), {}, InputError, "it has Text; did you mean 'Text'[?] give text_field='Text'"),
        (7, {}, InputError, "found int"),
        ("nothing.txt", {}, InputError, "no file matches nothing.txt"),
        ("a line of text", {}, InputError, "no file matches a line of text"),
        (["a b"], {"vector_sise": 3}, ConfigError, r"vector_sise: unknown setting; did you mean vector_size\?"),
    ],
)
def test_input_that_cannot_be_trained_on_is_refused_by_name(
    source: Any, settings: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pipeline.train(source, **({"workdir": str(tmp_path / "run")} | settings))


def test_training_without_a_folder_for_machine_code_says_what_to_do(tmp_path: Path) -> None:
    """As on an installation that cannot be written to, for a user without a home."""
    code = "import pipeline; pipeline.train(['a b'] * 9, workdir='run', min_count=1)"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(Path(__file__) / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert "cache: no folder for Numba's cache (Not a directory); set NUMBA_CACHE_DIR to a folder of your own" in done.stderr
    assert "PermissionDeniedError" in done.stderr


def test_the_python_interface_is_imported_on_first_use() -> None:
    code = "import sys, pipeline; print([name for name in ('numpy', 'pydantic', 'pyarrow') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = pipeline.trian  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("program", "arguments", "shown"),
    [("train_from_python.py", [], "string →"), ("own_tokenizer.py", ["own_tokenizer.py", "load_and_query.py"], "<Model:")],
)
@pytest.mark.turns(5, 7, of="readers")
def test_examples_run(program: str, arguments: list[str], shown: str) -> None:
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=ROOT / "examples", capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.turns(3, 1, of="readers")
def test_the_example_of_loading_answers_from_a_workdir(lines: list[str], tmp_path: Path) -> None:
    pipeline.train(lines, workdir=str(tmp_path / "run"), **SETTINGS)
    command = [sys.executable, ROOT / "examples" / "load_and_query.py", tmp_path / "run", "topic1word1", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "topic1word1 →" in done.stdout
    assert "nowhere: not in the vocabulary" in done.stdout


@pytest.mark.parametrize(
    "sentence", [["<p>", "the", "river", "</p>"], ['{"text":', "river"], ["/annex/objects/a", "b"], ["a,b", "c"]]
)
def test_words_that_look_like_a_file_of_another_format_are_words(tmp_path: Path, sentence: list[str]) -> None:
    model = pipeline.train([sentence] * 20, workdir=tmp_path / "run", min_count=1, epochs=1, vector_size=4)
    assert sorted(model.wv.index_to_key) == sorted(sentence)
