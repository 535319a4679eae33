"""A sweep trains every combination on one text; what it leaves, and what old runs leave, can be pruned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pipeline import store
from pipeline.commands.listed import commands
from pipeline.config import load_config
from pipeline.errors import ConfigError, DataError, UsageError
from pipeline.history.latest import champion_of
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.sweep.sweep import choices, combine, sweep, table
from tests.tiny import tiny_config, write_corpus


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tree = tiny_config(tmp_path / "work", write_corpus(tmp_path / "corpus", 400), tracking={"enabled": False})
    tree["cluster"] = {}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "tiny.yaml"


def test_values_are_parted_at_commas_outside_of_brackets_and_quotes() -> None:
    assert choices("train.alpha=.025,.05") == ["train.alpha=.025", "train.alpha=.05"]
    assert choices("evaluate.queries=[a, b],[c]") == ["evaluate.queries=[a, b]", "evaluate.queries=[c]"]
    assert choices("run.name='a,b'") == ["run.name='a,b'"]
    assert combine(["a.b=1,2", "c.d=3", "e.f=4,5"]) == [
        ("a.b=1", "c.d=3", "e.f=4"), ("a.b=1", "c.d=3", "e.f=5"), ("a.b=2", "c.d=3", "e.f=4"), ("a.b=2", "c.d=3", "e.f=5"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="nothing varies"):
        combine(["a.b=1"])


@pytest.mark.parametrize("key", ["run.name", "run.workdir"])
def test_what_all_combinations_share_cannot_vary(key: str, config: Path) -> None:
    with pytest.raises(UsageError, match=rf"sweep: {key} cannot vary; all combinations share one workdir"):
        sweep(config, [f"{key}=a,b"], Progress(quiet=True))


@pytest.mark.parametrize("given", [["train.alpha=.1,.1"], ["train.alpha=.1,0.10"], ["train.alpha=.1,.2", "train.alpha=.3"]])
def test_what_is_given_twice_would_be_the_same_run_and_is_refused(given: list[str], config: Path) -> None:
    with pytest.raises(UsageError, match=r"sweep: .*train\.alpha.* and .*train\.alpha.* would be the same run"):
        sweep(config, given, Progress(quiet=True))


@pytest.mark.turns(3, 3, of="gates")
def test_every_combination_is_trained_once_over_the_same_shards_and_the_champion_stays(config: Path) -> None:
    quiet = Progress(quiet=True)
    run(load_config(config), progress=quiet)
    champion = champion_of(load_config(config).workdir)
    tried = sweep(config, ["train.alpha=.02,.05", "train.epochs=1,2"], quiet)
    assert [one.settings for one in tried] == [
        {"train.alpha": alpha, "train.epochs": epochs} for alpha in (".02", ".05") for epochs in ("1", "2")
    ]
    assert len({one.summary["vectors"]["sha256"] for one in tried}) == 4
    for one in tried:
        assert all(one.summary["stages"][name]["cached"] for name in ("tokenize", "vocab", "shards"))
    after = champion_of(load_config(config).workdir)
    assert after is not None
    assert champion is not None
    assert after.id == champion.id
    head, *lines = table(tried)
    assert head.split() == ["train.alpha", "train.epochs", "loss", "seconds"]
    assert sum(line.count("*") for line in lines) == 1

    again = sweep(config, ["train.alpha=.02,.05", "train.epochs=1,2"], quiet)
    assert all(one.summary["stages"]["train"]["cached"] for one in again)


@pytest.mark.turns(3, 3, of="gates")
def test_a_combination_that_cannot_be_trained_does_not_end_the_others_and_is_told(config: Path) -> None:
    arguments = ["sweep", str(config), "vocab.min_count=2,99999,3", "train.epochs=1", "--quiet"]
    done = CliRunner().invoke(commands, arguments, standalone_mode=False)
    assert done.return_value == 65, "not everything is complete"
    assert "w2v: vocab.min_count=99999: " in done.stderr
    heads, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heads[:2] == ["vocab.min_count", "loss"]
    assert [row[0] for row in rows] == ["2", "99999", "3"]
    assert rows[1][1:] == ["–"] * (len(heads) - 1)
    rows = json.loads(CliRunner().invoke(commands, [*arguments, "--json"], standalone_mode=False).stdout)
    assert ["problem" in row for row in rows] == [False, True, False]
    with pytest.raises(DataError, match=r"no word reaches vocab\.min_count=99998"):
        sweep(config, ["vocab.min_count=99998,99999"], Progress(quiet=True))


def test_a_wrong_value_is_reported_before_anything_is_trained(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.alpha"):
        sweep(config, ["train.alpha=.02,fast"], Progress(quiet=True))
    assert not (config.parent / "work").exists()


@pytest.mark.turns(3, 2, of="gates")
def test_prune_says_what_would_go_and_removes_it_when_told(config: Path) -> None:
    def w2v(*arguments: str) -> str:
        ended = CliRunner().invoke(commands, [arguments[0], str(config), *arguments[1:]])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    for alpha in (".02", ".03", ".05"):
        w2v("run", "--quiet", f"train.alpha={alpha}")
    work = config.parent / "work"
    before = sorted(path.name for path in (work / "vectors").iterdir())
    rows = json.loads(w2v("sweep", "train.alpha=.02,.06", "--json", "--quiet"))
    assert [row["train.alpha"] for row in rows] == [".02", ".06"]
    with_override = w2v("prune", "--keep", "2", f"run.workdir={work}")
    assert with_override.endswith(f"would be freed; w2v prune {config} run.workdir={work} --keep 2 --yes removes it\n")
    assert (
        CliRunner().invoke(commands, ["prune", str(work), "--keep", "2"]).stdout.endswith(f" {work} --keep 2 --yes removes it\n")
    )
    assert len(list((work / "vectors").iterdir())) == 4
    with store.lock(work):
        told = CliRunner().invoke(commands, ["prune", str(config)]).stderr
        assert "another run is working here" in told, "a list made beside a run says so"
        assert CliRunner().invoke(commands, ["gc", str(config)]).stderr == told
    assert "removed" in w2v("prune", "--keep", "2", "--yes")
    assert w2v("prune", "--keep", "2") == "nothing to remove\n"
    assert list((work / "sweeps").iterdir()) == [], "the pages of the sweep"
    kept = sorted(path.name for path in (work / "vectors").iterdir())
    assert len(kept) == 2
    assert set(kept) < set(before)
    assert all(row["cached"] for row in json.loads(w2v("run", "--quiet", "--json", "train.alpha=.05"))["stages"].values())


@pytest.mark.turns(3, 2, of="gates")
def test_commands_that_are_suggested_name_the_overrides_that_were_given(config: Path) -> None:
    def w2v(command: str, *more: str) -> str:
        ended = CliRunner().invoke(commands, [command, str(config), *given, *more], standalone_mode=False)
        assert ended.exception is None, ended.output
        return ended.output.rstrip().splitlines()[-1]

    given = [f"run.workdir={config.parent / 'other'}", "refresh.epochs=1", "refresh.gates.drift=0"]
    told = f"{config} {' '.join(given)}"
    w2v("run", "--quiet", "train.epochs=1")
    with open(config.parent / "corpus" / "a.txt", "a") as file:
        file.write("topic1word1 topic1word2 topic1word3\n" * 20)
    kept = w2v("refresh", "--quiet")
    assert "stays: gate drift" in kept
    assert f"; to use it anyway: w2v rollback {told} " in kept
    assert w2v("gc", "refresh.keep=1").endswith(f"bytes could be freed; w2v gc {told} refresh.keep=1 --yes removes them")
    assert w2v("refresh", "--quiet", "--cold", "refresh.keep=1").endswith("; it was removed, because refresh.keep is 1")
