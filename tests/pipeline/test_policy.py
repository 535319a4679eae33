"""The policy of training is data, each constant with its source, and a result says by which policy it was made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipeline import store
from pipeline.cluster.workers import InProcess
from pipeline.config import Train, parse_config
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.training import policy
from pipeline.training.plan import choose_schedule, doublings, plan_epoch
from pipeline.training.policy import (
    ALPHA_POLICY,
    LANE_POLICY,
    MERGE_POLICY,
    START_POLICY,
    Policy,
    as_data,
    by_number,
    sources,
)
from tests.tiny import tiny_config, write_corpus

INFRA = Path(__file__).parents[2] / "infra"


@pytest.mark.parametrize(
    "chosen", [MERGE_POLICY, ALPHA_POLICY, LANE_POLICY, START_POLICY], ids=lambda chosen: type(chosen).__name__
)
def test_every_constant_names_a_row_that_stands_in_its_record(chosen: Policy) -> None:
    assert set(sources(chosen)) == {constant.name for constant in dataclasses.fields(chosen)}
    for name, (source, row) in sources(chosen).items():
        assert row, name
        if source != policy.REASONED:
            assert row in (INFRA / source).read_text(), f"{name}: {source} has no such row: {row}"


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MERGE_POLICY.hot_rows = 1  # type: ignore[misc]


def test_a_value_by_number_holds_from_its_number_of_lanes_on() -> None:
    found = [by_number(((2, 512), (4, 32), (64, 16)), lanes) for lanes in (1, 2, 3, 4, 63, 64, 1000)]
    assert found == [512, 512, 512, 32, 32, 16, 16]
    assert as_data(MERGE_POLICY)["most_tokens_per_rank"] == {"3": 1 << 20, "16": 32, "64": 16}


def test_the_interval_of_merges_doubles_as_often_as_lies_between_its_first_and_its_last() -> None:
    assert [doublings(copies, copies, MERGE_POLICY) for copies in (2, 3, 8, 16, 63, 64)] == [2, 16, 16, 1, 1, 0]
    assert [doublings(2, lanes, MERGE_POLICY) for lanes in (2, 8, 16, 32, 64)] == [2, 2, 2, 4, 4]


def test_another_policy_gives_another_plan() -> None:
    train = Train(lanes=8, copies=8)
    before = choose_schedule(train, 70_000, 9_000_000)
    rarely = dataclasses.replace(MERGE_POLICY, tokens_per_rank=((2, 64),))
    assert choose_schedule(train, 70_000, 9_000_000, rarely).steps * 4 == pytest.approx(before.steps, rel=0.01)
    plan = plan_epoch(train, before, 70_000, 1, 9_000_000)
    steady = dataclasses.replace(plan, policy=dataclasses.replace(ALPHA_POLICY, slowdown=((1, 0.0),)))
    assert steady.alpha(100) > plan.alpha(100)


@pytest.mark.parametrize("engine", ["kernels", "layers"])
def test_a_result_says_by_what_policy_it_was_made(engine: str, tmp_path: Path) -> None:
    train = {"engine": "layers", "lanes": 1, "epochs": 1} if engine == "layers" else {"lanes": 2, "hot_merge_every": 200}
    tree = tiny_config(
        tmp_path / "run", write_corpus(tmp_path / "corpus", sentences=100), tracking={"enabled": False}, train=train
    )
    if engine == "layers":
        for key in ("merge_every", "hot_rows", "hot_merge_every", "checkpoint_every"):
            tree["train"].pop(key, None)
    summary = run(parse_config(tree), until="train", workers=InProcess(), progress=Progress(quiet=True))
    fields = store.load_artefact(Path(summary["vectors"]["path"])).manifest.fields
    expected = {name: as_data(chosen) for name, chosen in policy.POLICIES.items()} if engine == "kernels" else {}
    assert summary["train"]["policy"] == {name: fields[name] for name in expected} == expected
    # The layers merge nothing, so another policy of merging is no reason to train again.
    assert ("merge_policy" in fields) == (engine == "kernels")
