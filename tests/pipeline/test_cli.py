"""The command line: fast answers, one readable message per error, documented exit codes, useful output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipeline import load
from pipeline.commands.listed import commands
from pipeline.errors import EXIT_CODES
from pipeline.stages.ladder import NAMES
from tests.tiny import IN_THREADS, tiny_config, write_corpus

HEAVY = {"mlflow", "numba", "cupy", "dask", "distributed", "pyarrow", "numpy"}


def w2v(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=200,
    )  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """The modules that a command imports."""
    code = (
        "import sys\nfrom pipeline.commands.listed import commands\n"
        f"try:\n    commands.main({list(arguments)!r}, standalone_mode=False)\nexcept BaseException: pass\n"
        "print('modules', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.strip().splitlines()[-1].split())


def heavy_imports(*arguments: str) -> set[str]:
    """The heavy packages that a command imports."""
    return HEAVY & {name.split(".")[0] for name in imported(*arguments)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a complete run."""
    base = tmp_path_factory.mktemp("cli")
    tree = tiny_config(base / "work", write_corpus(base / "corpus", 2000), tracking={"enabled": False}, cluster=IN_THREADS)
    path = base / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    done = w2v("run", str(path))
    assert done.returncode == 0, done.stderr
    assert "neighbours" in done.stdout
    assert "topic1word1:topic1word2" in done.stdout
    return path


def test_help_and_configuration_errors_import_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train: {negatve: 1}\n")
    assert heavy_imports("--help") == set()
    assert heavy_imports("run", "--help") == set()
    assert heavy_imports("run", str(path)) == set()


def test_a_run_in_this_process_imports_nothing_of_clusters_or_of_mlflow(finished: Path, tmp_path: Path) -> None:
    packages = {name.split(".")[0] for name in imported("run", str(finished), f"run.workdir={tmp_path / 'work'}")}
    assert (tmp_path / "work" / "summary.json").exists(), "it ran"
    assert not packages & {"dask", "distributed", "tornado", "asyncio", "mlflow", "pandas"}


@pytest.mark.parametrize("asked", [("similar", "topic1word1"), ("analogy", "topic1word1", "topic1word2", "topic1word3")])
def test_a_question_to_a_workdir_on_a_disk_imports_no_settings_no_stages_and_no_buckets(
    finished: Path, asked: tuple[str, ...]
) -> None:
    kind, *words = asked
    modules = imported("query", kind, str(finished.parent / "work"), *words)
    assert "w2v_core.vectors.cosines" in modules, "it was answered"
    assert not {name.split(".")[0] for name in modules} & (HEAVY - {"numpy"} | {"pydantic", "yaml"})
    rooms = {name for name in modules if name.startswith("pipeline.")}
    assert not {name for name in rooms if name.startswith(("pipeline.stages", "pipeline.options", "pipeline.tracking"))}
    assert "pipeline.storage.copies" not in rooms


def test_a_run_that_had_nothing_to_tell_mlflow_is_not_waited_for_afterwards(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("corpus: {inputs: [nothing-here]}")
    assert w2v("run", "c.yaml", cwd=tmp_path).returncode == 66
    assert "tracked" not in w2v("status", "c.yaml", cwd=tmp_path).stdout
    done = w2v("sync", "c.yaml", cwd=tmp_path)
    assert (done.returncode, "nothing was tracked here yet" in done.stdout) == (0, True), done.stdout


def test_the_status_imports_no_stages_and_no_text(finished: Path) -> None:
    modules = imported("status", str(finished))
    assert "pipeline.workdir" in modules, "it was shown"
    assert not {name for name in modules if name.startswith(("pipeline.stages.", "pipeline.text.", "pipeline.training."))}


def test_help_lists_every_command_and_every_exit_code() -> None:
    text = w2v("--help").stdout
    for command in ("run", *NAMES, "refresh", "history", "rollback", "gc", "query", "export", "fetch", "status", "verify", "ui"):
        assert f"  {command} " in text, command
    flat = " ".join(text.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in flat


def test_every_option_is_explained_and_no_description_is_cut() -> None:
    def explained(command: click.Command, name: str) -> list[str]:
        options = [
            f"{name} {option.opts[0]}" for option in command.params if isinstance(option, click.Option) and not option.help
        ]
        inner = command.commands if isinstance(command, click.Group) else {}
        return [*options, *(problem for key, each in inner.items() for problem in explained(each, f"{name} {key}"))]

    assert explained(commands, "w2v") == []
    for group in ((), ("query",), ("cluster",)):
        assert "..." not in w2v(*group, "--help").stdout.partition("Commands:")[2]


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path) -> None:
    (folder := tmp_path / "gone").mkdir()
    script = f"rmdir {folder}; {sys.executable} -P -m pipeline.cli status c.yaml"
    (tmp_path / "c.yaml").write_text("corpus: {inputs: [x]}")
    script = script.replace("c.yaml", str(tmp_path / "c.yaml"))
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (66, "w2v: the current folder does not exist any more; change to one that does\n")


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("train: {negatve: 1}\ncorpus: {inputs: [x]}", 78, "did you mean train.negative"),
        ("corpus: {inputs: [nothing-here]}", 66, "nothing-here"),
        (None, 66, "cannot read the configuration"),
    ],
)
def test_an_error_is_one_message_and_its_exit_code(tmp_path: Path, text: str | None, code: int, message: str) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    done = w2v("run", "c.yaml", cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_command_line_exits_64() -> None:
    assert w2v("run").returncode == 64
    assert w2v("dance").returncode == 64
    assert w2v("run", "c.yaml", "--dance").returncode == 64


def test_a_stage_command_stops_after_its_stage(tmp_path: Path) -> None:
    tree = tiny_config(tmp_path / "work", write_corpus(tmp_path / "corpus", 500), cluster=IN_THREADS)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    done = w2v("vocab", str(tmp_path / "c.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["stages"]) == ["tokenize", "vocab"]
    assert not (tmp_path / "work" / "shards").exists()


@pytest.mark.turns(5, 7)
def test_query_answers_from_a_configuration_a_folder_and_an_exported_file(finished: Path, tmp_path: Path) -> None:
    from_config = w2v("query", "similar", str(finished), "topic1word1", "-n", "3")
    assert from_config.returncode == 0, from_config.stderr
    assert from_config.stdout.startswith("topic1word1\n")
    assert len(from_config.stdout.splitlines()) == 4
    summary = json.loads((finished.parent / "work" / "summary.json").read_text())
    assert w2v("query", "similar", summary["vectors"]["path"], "topic1word1", "-n", "3").stdout == from_config.stdout
    exported = w2v("export", str(finished), str(tmp_path), "-f", "word2vec-text")
    assert exported.returncode == 0, exported.stderr
    path = exported.stdout.strip()
    assert w2v("query", "similar", path, "topic1word1", "-n", "3").stdout == from_config.stdout
    elsewhere = tmp_path / "elsewhere.yaml"
    elsewhere.write_text(yaml.safe_dump(yaml.safe_load(finished.read_text()) | {"run": {"workdir": str(tmp_path / "none")}}))
    setting = f"run.workdir={finished.parent / 'work'}"
    assert w2v("query", "similar", str(elsewhere), "topic1word1", setting, "-n", "3").stdout == from_config.stdout
    assert w2v("query", "similar", str(elsewhere), "topic1word1").returncode == 66
    predicted = w2v("query", "predict", str(finished), "topic1word1", "topic1word2", "-n", "3")
    assert len(predicted.stdout.splitlines()) == 3, predicted.stderr
    analogy = w2v("query", "analogy", str(finished), "topic1word1", "topic1word2", "topic2word1")
    assert len(analogy.stdout.splitlines()) == 5


def test_a_configuration_is_known_by_its_name_in_any_case_to_every_command(finished: Path, tmp_path: Path) -> None:
    loud = tmp_path / "Tiny.YAML"
    loud.write_text(finished.read_text())
    answer = w2v("query", "similar", str(loud), "topic1word1", "run.name=tiny")
    assert (answer.returncode, answer.stdout.splitlines()[0]) == (0, "topic1word1"), answer.stderr
    assert w2v("export", str(loud), str(tmp_path / "out")).returncode == 0
    assert w2v("compare", str(loud), str(finished)).returncode == 0
    assert len(load(loud)) == len(load(finished))


def test_an_unknown_word_is_named(finished: Path) -> None:
    done = w2v("query", "similar", str(finished), "topic1wrod1")
    assert done.returncode == 66
    assert "topic1wrod1" in done.stderr
    assert "topic1word1" in done.stderr


def test_verify_finds_a_flipped_bit_and_exits_74(finished: Path) -> None:
    assert w2v("verify", str(finished)).returncode == 0
    victim = next((finished.parent / "work" / "vocab").glob("*/vocab.parquet"))
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    done = w2v("verify", str(finished))
    data[100] ^= 1
    victim.write_bytes(data)
    assert done.returncode == 74
    assert "vocab.parquet" in done.stderr


def test_refresh_says_nothing_new_when_nothing_is(finished: Path) -> None:
    done = w2v("refresh", str(finished), "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "nothing new"


def test_status_of_a_workdir(finished: Path, tmp_path: Path) -> None:
    assert "last complete run" in w2v("status", str(finished)).stdout
    (tmp_path / "c.yaml").write_text("corpus: {inputs: [x]}\nrun: {workdir: none}")
    assert "nothing here yet" in w2v("status", "c.yaml", cwd=tmp_path).stdout


def test_programs_are_told_in_json_what_people_are_told_in_lines(finished: Path, tmp_path: Path) -> None:
    """Each command with the shape that its help names."""
    home = Path(shutil.copytree(finished.parent, tmp_path / "home", symlinks=True))
    config, work = str(home / "tiny.yaml"), home / "work"
    finished_config = yaml.safe_load(finished.read_text())
    Path(config).write_text(yaml.safe_dump(finished_config | {"run": finished_config["run"] | {"workdir": str(work)}}))
    summary = json.loads((work / "summary.json").read_text())

    def told(*arguments: str) -> dict[str, Any]:
        done = w2v(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    status = told("status", config, "train.epochs=3")
    rows = {row["stage"]: row for row in status.pop("artefacts")}
    assert rows["vectors"]["fingerprint"] == summary["stages"]["train"]["fingerprint"]
    assert rows["vectors"]["bytes"] > rows["vectors"]["files"] > 1
    answer = status.pop("answer")
    assert answer.pop("made") > 1.7e9
    assert answer == {
        "run_id": summary["run_id"], "vectors": str(work / "vectors" / rows["vectors"]["fingerprint"][:16]),
        "same_configuration": False, "differences": ["train.epochs 2 → 3"],
    }  # fmt: skip
    assert status == {
        "workdir": str(work), "exists": True, "place": None, "working": None, "working_there": None, "problems": [],
        "last_run": "complete", "tracked": [],
    }  # fmt: skip
    assert "same_configuration" not in told("status", str(work))["answer"]
    nothing = told("status", config, f"run.workdir={tmp_path / 'none'}")
    assert (nothing["exists"], nothing["answer"], nothing["artefacts"]) == (False, None, [])

    decision = told("history", config)
    assert (decision["number"], decision["kind"], decision["champion"]) == (1, "run", decision["snapshot"])

    victim = work / "vocab" / rows["vocab"]["fingerprint"][:16] / "vocab.parquet"
    checked = told("verify", config)
    assert (checked["workdir"], checked["damage"], checked["files"] > 10) == (str(work), [], True)
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    done = w2v("verify", config, "--json")
    victim.write_bytes(whole)
    assert done.returncode == 74
    assert [str(victim) in problem for problem in json.loads(done.stdout)["damage"]] == [True]

    unneeded = work / "vectors" / "0123456789abcdef"
    for command in ("gc", "prune"):
        unneeded.mkdir()
        (unneeded / "file").write_bytes(b"12345")
        for yes in ((), ("--yes",)):
            piece = {"path": "vectors/0123456789abcdef", "bytes": 5, "why": "interrupted"}
            assert told(command, config, *yes) == {"workdir": str(work), "removed": bool(yes), "bytes": 5, "garbage": [piece]}
        assert not unneeded.exists()
        assert told(command, config)["garbage"] == []


@pytest.mark.turns(5, 7)
def test_commands_that_read_take_a_workdir_too(finished: Path, tmp_path: Path) -> None:
    home = finished.parent
    (shown,) = (line for line in w2v("status", "work", cwd=home).stdout.splitlines() if "last complete run" in line)
    run_id = json.loads((home / "work" / "summary.json").read_text())["run_id"]
    assert shown.strip() == f"last complete run: {run_id}", "there is no configuration that could be this or another one"
    for command in ("verify", "history", "sync"):
        from_workdir, from_config = w2v(command, "work", cwd=home), w2v(command, str(finished))
        assert (from_workdir.returncode, from_workdir.stdout) == (from_config.returncode, from_config.stdout), command
    for command in ("status", "verify", "history", "sync", "ui"):
        done = w2v(command, str(tmp_path))
        assert done.returncode == 66
        assert f"{tmp_path}: no run has left anything in this folder; give a CONFIG or a workdir" in done.stderr
        assert w2v(command, "elsewhere.yaml", cwd=tmp_path).returncode == 66


def test_progress_goes_to_standard_error_and_results_to_standard_output(finished: Path) -> None:
    done = w2v("run", str(finished), "--json")
    assert json.loads(done.stdout)["status"] == "complete"
    assert "train:" in done.stderr
    assert w2v("run", str(finished), "--json", "--quiet").stderr == ""


def run_without(streams: str, finished: Path, *arguments: str) -> int:
    """The exit code of a command run by a shell with redirections."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, cwd=finished.parent, timeout=200).returncode


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_errors_and_no_file_gets_their_place(finished: Path, streams: str) -> None:
    exported = finished.parent / "out-closed"
    assert run_without(streams, finished, "export", "tiny.yaml", str(exported), "-f", "word2vec-text", "--force") == 0
    assert not {name for path in exported.iterdir() if (name := path.read_bytes()).startswith(b"from ")}
    assert run_without(streams, finished, "run", "tiny.yaml", "train.epochs=3") == 0
    assert w2v("verify", str(finished)).returncode == 0
    assert run_without(streams, finished, "dance") == 64
    assert w2v("run", str(finished)).returncode == 0


def unread(command: list[str], output: str) -> int:
    """The exit code of a command into a pipe that has no reader."""
    reading, writing = os.pipe()
    os.close(reading)
    others = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.run([sys.executable, *command], timeout=200, **others | {output: writing}).returncode
    finally:
        os.close(writing)


def test_output_that_nobody_reads_ends_a_command_with_its_own_exit_code(finished: Path) -> None:
    for arguments in (["--help"], ["status", str(finished)], ["query", "similar", str(finished), "topic1word1"]):
        assert unread(["-m", "pipeline.cli", *arguments], "stdout") == 141
    assert unread(["-m", "pipeline.cli", "dance"], "stderr") == 64


def test_a_run_goes_on_if_nobody_reads_its_progress(finished: Path) -> None:
    assert unread(["-m", "pipeline.cli", "run", str(finished), "train.epochs=4"], "stderr") == 0
    assert "4 →" in w2v("query", "similar", str(finished), "topic1word1").stderr
    assert w2v("run", str(finished)).returncode == 0


def test_a_pipe_to_another_process_that_breaks_is_an_error_and_no_success() -> None:
    code = """
import os, sys
from pipeline import cli
from pipeline.commands.listed import commands

@commands.command()
def working():
    reading, writing = os.pipe()
    os.close(reading)
    os.write(writing, b"work")

sys.argv = ["w2v", "working"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, "Broken pipe" in ended.stderr) == (74, True), ended.stderr


def test_a_termination_that_a_compiler_loses_is_not_called_a_bug() -> None:
    code = """
import ctypes, os, signal, sys
from pipeline import cli
from pipeline.commands.listed import commands

@commands.command()
def compiling():
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), signal.SIGTERM))()
    raise RuntimeError("no compiled object yet")

sys.argv = ["w2v", "compiling"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 143, ended.stderr
    assert "w2v: terminated; finished work is kept. Resume with:\n  w2v compiling" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_arrives_while_an_object_is_finalised_is_not_lost(number: str, code: int) -> None:
    program = f"""
import os, signal, sys, time
from pipeline import cli
from pipeline.commands.listed import commands

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})

@commands.command()
def forgetting():
    Last()
    time.sleep(60)

sys.argv = ["w2v", "forgetting"]
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=50)
    assert ended.returncode == code, ended.stderr
    assert "w2v forgetting" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_ctrl_c_while_the_commands_are_still_imported_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    ended = w2v("plan", "my.yaml", PYTHONPATH=path, PYTHONSAFEPATH="1")
    assert (ended.returncode, "Traceback" in ended.stderr) == (130, False), ended.stderr


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--epochs", "A setting is given behind the file, without hyphens: train.epochs=…"),
        ("--alpha", "A setting is given behind the file, without hyphens: train.alpha=…"),  # which is like --help, too
        ("--vector-size", "A setting is given behind the file, without hyphens: train.vector_size=…"),
        ("--sg", "Here it is train.model=skipgram (cbow is the default)"),
        ("--qiet", "Error: No such option '--qiet'. Did you mean '--quiet'?"),
    ],
)
def test_a_setting_written_as_an_option_is_told_how_it_is_given(option: str, told: str) -> None:
    done = w2v("run", "mine.yaml", option, "3")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (64, told)


def test_a_file_given_where_a_command_is_expected_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    for group, first in (("", "run"), ("query", "similar")):
        done = w2v(*group.split(), str(path), "river")
        assert done.returncode == 64
        assert f"'{path}' is a file or folder; a command comes before it, for example" in done.stderr
        assert done.stderr.endswith(f"{' '.join([group, first]).strip()}\n")
