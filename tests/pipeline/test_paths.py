"""Paths in a configuration are relative to its file, wherever it is run; files written for the old rule get an explanation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.workers import InProcess
from pipeline.commands.arguments import load_run
from pipeline.config import known_keys, load_config, parse_config
from pipeline.errors import ConfigError, InputError
from pipeline.history.answers import Answer, changes, differences
from pipeline.options.other_names import OTHER_NAMES, suggest
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.session import holding
from tests.tiny import write_corpus

TEXT = """
run: {name: here}
corpus: {inputs: [texts/*.txt, /absolute/x.txt, "pydocs:"]}
evaluate: {analogies: [sets/questions.txt]}
tracking: {uri: "sqlite:///track.db"}
cluster: {kind: address, address: "tls://x:1", tls: {ca_file: tls/ca.pem, cert: tls/c.pem, key: /etc/k.pem}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration in one folder, while the current folder is another."""
    (tmp_path / "project").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / "run.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "project"


def test_paths_are_relative_to_the_file_and_addresses_stay(project: Path) -> None:
    config = load_config(project / "run.yaml")
    assert config.corpus.inputs == [str(project / "texts/*.txt"), "/absolute/x.txt", "pydocs:"]
    assert config.evaluate.analogies == [str(project / "sets/questions.txt")]
    assert config.workdir == project / "runs" / "here"
    (project / "one.yaml").write_text("corpus: {inputs: a.txt}\nevaluate: {analogies: sets/questions.txt}\n")
    assert load_config(project / "one.yaml").evaluate.analogies == [str(project / "sets/questions.txt")]
    assert config.tracking.uri == f"sqlite:///{project / 'track.db'}"
    assert config.cluster.tls is not None
    assert (config.cluster.tls.ca_file, config.cluster.tls.key) == (str(project / "tls/ca.pem"), "/etc/k.pem")


def test_paths_in_a_file_are_absolute_so_that_workers_with_another_current_folder_find_them(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    config = load_config("run.yaml")
    assert config.corpus.inputs == [str(project / "texts/*.txt"), "/absolute/x.txt", "pydocs:"]
    assert config.evaluate.analogies == [str(project / "sets/questions.txt")]
    assert config.cluster.tls is not None
    assert config.cluster.tls.ca_file == str(project / "tls/ca.pem")


def test_overrides_are_relative_to_the_current_folder(project: Path) -> None:
    config = load_config("../project/run.yaml", ["run.workdir=out", "corpus.inputs=[mine.txt]"])
    assert config.workdir == project.parent / "home" / "out"
    assert config.corpus.inputs == ["mine.txt"]
    assert load_config("../project/run.yaml", ["run.name=other"]).workdir == project / "runs" / "other"


def test_a_tilde_is_the_home_folder_in_a_file_as_on_the_command_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = project.parent / "home"
    monkeypatch.setenv("HOME", str(home))
    (project / "tilde.yaml").write_text("run: {workdir: ~/out}\ncorpus: {inputs: [~/texts/*.txt, ~notes.txt]}\n")
    config = load_config(project / "tilde.yaml")
    assert (config.workdir, config.corpus.inputs) == (home / "out", [f"{home}/texts/*.txt", str(project / "~notes.txt")])
    config = load_config(project / "run.yaml", ["run.workdir=~/out", "train.start_from=~/vectors"])
    assert (config.workdir, config.train.start_from) == (home / "out", str(home / "vectors"))


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("run: {workdir: $HOME/out}", "run.workdir"),
        ("run: {workdir: 'runs/${NAME}-x'}", "run.workdir"),
        ("corpus: {inputs: [x.txt, $DATA/*.txt]}", "corpus.inputs"),
        ("corpus: {inputs: ['s3://${BUCKET}/x']}", "corpus.inputs"),
        ("tracking: {uri: 'sqlite:///$HOME/track.db'}", "tracking.uri"),
    ],
)
def test_a_variable_of_the_shell_in_a_path_is_refused_instead_of_making_a_folder_of_its_name(
    project: Path, section: str, key: str
) -> None:
    corpus = "" if section.startswith("corpus") else "\ncorpus: {inputs: [x.txt]}"
    (project / "variable.yaml").write_text(section + corpus)
    with pytest.raises(ConfigError, match=rf"{key}: \$\{{?[A-Z]+\}}? is not replaced in a configuration.*{key}="):
        load_config(project / "variable.yaml")


def test_a_dollar_sign_in_the_name_of_a_file_that_exists_or_inside_a_name_is_no_variable(project: Path) -> None:
    (project / "$HOME").mkdir()
    (project / "dollar.yaml").write_text("run: {workdir: $HOME}\ncorpus: {inputs: [a$b.txt, cash$.txt, 's3://bucket/a$b']}")
    config = load_config(project / "dollar.yaml")
    assert (config.workdir, config.corpus.inputs[2]) == (project / "$HOME", "s3://bucket/a$b")


def test_a_run_is_the_same_from_every_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_home = load_config("../project/run.yaml").digest
    monkeypatch.chdir(project)
    assert load_config("run.yaml").digest == from_home == load_config(project / "run.yaml").digest
    moved = project.rename(project.with_name("moved"))
    assert load_config(moved / "run.yaml").digest == from_home


def test_a_folder_whose_name_looks_like_a_pattern_is_taken_literally(tmp_path: Path) -> None:
    write_corpus(tmp_path / "odd[1]", 10)
    (tmp_path / "odd[1]" / "run.yaml").write_text("corpus: {inputs: ['*.txt']}")
    from pipeline.text.corpus import plan_corpus

    plan = plan_corpus(load_config(tmp_path / "odd[1]" / "run.yaml").corpus)
    assert [Path(file.path).name for file in plan.files] == ["a.txt", "c.txt"]


def test_an_input_that_was_relative_to_the_current_folder_is_refused_with_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.txt").write_text("a b c\n")
    (tmp_path / "configs" / "run.yaml").write_text("corpus: {inputs: data/x.txt}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"corpus\.inputs: data/x\.txt is not in configs.* write \.\./data/x\.txt"):
        load_config("configs/run.yaml")


def test_results_of_an_earlier_run_at_the_old_place_are_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "runs" / "mine" / "tokens").mkdir(parents=True)
    (tmp_path / "configs" / "run.yaml").write_text("{run: {name: mine}, corpus: {inputs: 'pydocs:'}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"an earlier run lies in .*runs/mine.* Write run\.workdir: \.\./runs/mine"):
        load_config("configs/run.yaml")


def test_what_the_command_line_says_cannot_have_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "runs" / "mine" / "tokens").mkdir(parents=True)
    (tmp_path / "x.txt").write_text("a b c\n")
    (tmp_path / "configs" / "run.yaml").write_text("{run: {name: mine}, corpus: {inputs: x.txt}}")
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    config = load_config("configs/run.yaml", [f"run.workdir={elsewhere}", "corpus.inputs=['pydocs:']"])
    assert config.workdir == elsewhere


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        ("s3:/bucket", "an address has two slashes"),
        ("s3://", "expected the name of a bucket"),
        ("file:///tmp/x", "write a local file as a path"),
        ("hdfs://host/x", "expected s3://, gs://, abfss:// or a path"),
    ],
)
def test_a_workdir_is_a_folder_or_lies_in_a_bucket(workdir: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.workdir: .*{message}"):
        parse_config({"corpus": {"inputs": ["x"]}, "run": {"workdir": workdir}})


def test_a_workdir_on_links_that_go_in_a_circle_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        (tmp_path / name).symlink_to(tmp_path / other)
    (text := tmp_path / "text.txt").write_text("a b c\n")
    config = parse_config({"run": {"workdir": str(tmp_path / "a")}, "corpus": {"inputs": [str(text)]}})
    with pytest.raises(ConfigError, match=r"run\.workdir: .* cannot be a folder"), holding(config):
        pass


LATIN = os.fsdecode(b"caf\xe9")
NOT_UTF8 = r"is not UTF-8, as settings are \(it holds the byte 0xe9\); rename the file or the folder"


@pytest.mark.parametrize("key", ["run.workdir", "corpus.inputs", "tracking.textfile", "train.start_from"])
def test_a_name_that_is_not_utf8_is_refused_as_that_wherever_it_is_set(key: str) -> None:
    with pytest.raises(ConfigError, match=NOT_UTF8):
        parse_config({"corpus": {"inputs": ["x"]}}, [f"{key}={LATIN}/x"])
    section, name = key.split(".")
    tree: dict[str, dict[str, Any]] = {"corpus": {"inputs": ["x"]}}
    tree.setdefault(section, {})[name] = f"{LATIN}/x"  # from a program, or after anchoring
    with pytest.raises(ConfigError, match=rf"{key}: {NOT_UTF8}"):
        parse_config(tree)


def test_a_configuration_or_workdir_in_a_folder_whose_name_is_not_utf8_is_refused_as_that_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside := tmp_path / LATIN).mkdir()
    (text := tmp_path / "a.txt").write_text("a b c\n")
    (inside / "c.yaml").write_text(f"corpus: {{inputs: [{text}]}}\nrun: {{workdir: {tmp_path}/work}}\n")
    with pytest.raises(InputError, match=f"c.yaml: the path of the configuration {NOT_UTF8}"):
        load_config(inside / "c.yaml")
    with pytest.raises(InputError, match=f"^[^\n]*{NOT_UTF8}[^\n]*$"):
        load_run(str(inside), ())
    monkeypatch.chdir(inside)
    config = parse_config({"corpus": {"inputs": [str(text)]}, "run": {"workdir": "work"}})
    with pytest.raises(ConfigError, match=rf"run\.workdir: .*work {NOT_UTF8}"), holding(config):
        pass
    assert os.listdir(inside) == ["c.yaml"]


def test_files_whose_names_are_not_utf8_are_read_from_their_folder(tmp_path: Path) -> None:
    (tmp_path / "texts" / LATIN).mkdir(parents=True)
    (tmp_path / "texts" / LATIN / f"{LATIN}.txt").write_text("one two three one two three\n" * 50)
    tree = {
        "run": {"workdir": str(tmp_path / "work")}, "corpus": {"inputs": [str(tmp_path / "texts")]},
        "train": {"vector_size": 4, "epochs": 1}, "tracking": {"enabled": False},
    }  # fmt: skip
    summary = run(parse_config(tree), workers=InProcess(), progress=Progress(quiet=True))
    assert summary["corpus"]["tokens"] == 300


def test_a_workdir_in_a_bucket_is_worked_on_in_a_folder_that_is_not_called_like_it(tmp_path: Path) -> None:
    tree = {"corpus": {"inputs": ["x"]}, "run": {"workdir": "s3://bucket/run/"}, "storage": {"cache": str(tmp_path)}}
    found = parse_config(tree)
    assert str(found.place) == "s3://bucket/run"
    assert found.workdir.parent.parent == tmp_path
    assert not list(tmp_path.iterdir()), "reading a configuration makes no folder"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.sg", "train.model=skipgram"),
        ("train.window", "shards.window"),
        ("vocab.minCount", "vocab.min_count"),
        ("train.size", "train.vector_size"),
        ("train.workers", "train.lanes"),
        ("train.negatve", "train.negative"),
        ("train.hs", "negative sampling only"),
    ],
)
def test_an_unknown_key_is_explained_by_other_programs_names(key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: unknown key.*{meant}"):
        parse_config({"corpus": {"inputs": ["x"]}}, [f"{key}=1"])


def test_explanations_of_other_programs_names_refer_to_keys_that_exist() -> None:
    known = set(known_keys())
    for name, meant in OTHER_NAMES.items():
        keys = [word.strip("(,:;)").partition("=")[0].rstrip(":") for word in meant.split() if "." in word.strip("(,:;)")]
        assert all(key in known for key in keys), (name, meant)
        assert keys or meant.startswith("nothing here"), name
        assert name not in {key.rpartition(".")[2] for key in known}, f"{name} is a key here: it needs no explanation"
    assert suggest("zzz.qqqqqqqq", sorted(known)) is None


def test_numbers_that_are_left_to_be_chosen_are_null_where_settings_are_compared() -> None:
    corpus = {"corpus": {"inputs": ["x"]}}
    then = parse_config(corpus | {"train": {"lanes": 2}}).model_dump(mode="json", by_alias=True)
    assert changes(Answer(Path(), Path(), {"config": then}, 0.0), parse_config(corpus)) == ["train.lanes 2 → null"]


def test_a_project_that_was_moved_with_its_files_has_no_difference(project: Path) -> None:
    """Unlike one of which a setting was changed as well, or a file that lies elsewhere."""
    config = load_config(project / "run.yaml")
    made = Answer(project, project, {"config": config.told(), "folder": str(config.folder)}, 0.0)
    moved = project.with_name("moved")

    def told(path: Path, *overrides: str) -> list[str]:
        return [text.partition(" [")[0] for text in changes(made, load_config(path, overrides))]

    assert told(project.rename(moved) / "run.yaml") == []
    assert told(moved / "run.yaml", "train.epochs=7") == ["train.epochs 5 → 7"]
    assert told(moved / "run.yaml", f"evaluate.analogies=[{moved}/other/questions.txt]") == ["evaluate.analogies"]
    (moved / "other").mkdir()
    assert told((moved / "run.yaml").rename(moved / "other" / "run.yaml")) == [], "where the same files are beside it"
    made.summary["config"]["corpus"]["inputs"][1] = "/absolute/y.txt"
    assert told(moved / "other" / "run.yaml") == ["corpus.inputs"]


def test_the_same_files_seen_from_another_folder_are_no_difference() -> None:
    def differing(then: object, now: object) -> list[str]:
        return list(differences({"corpus": {"inputs": then}}, {"corpus": {"inputs": now}}))

    assert differing(["texts/*.txt", "b"], ["/home/me/texts/*.txt", "/home/me/b"]) == []
    assert differing(["/home/me/texts/*.txt"], ["texts/*.txt"]) == []
    assert differing(["texts/*.txt"], ["/home/me/other/*.txt"]) != []
    assert differing(["xts/a"], ["/home/me/texts/a"]) != []
    assert differing(["a"], ["a", "b"]) != []
