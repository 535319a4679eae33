"""Workers that compute the same bits have equal samples, others do not; which workers may train follows from that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.config import Train
from pipeline.errors import ServiceError
from pipeline.training import arithmetic
from pipeline.training.arithmetic import Judgement, KnownNumbers, Numbers, judge, numbers_of

OURS, THEIRS, THIRD = (Numbers(digest * 64, "numba", f"processor {digest}", "numba 1, numpy 2") for digest in "abc")


def test_workers_that_compute_alike_all_train_and_nothing_is_said() -> None:
    assert judge([OURS] * 3, None, deterministic=True) == Judgement(frozenset([OURS.digest]), ())
    assert judge([OURS] * 3, OURS, deterministic=False) == Judgement(frozenset([OURS.digest]), ())


def test_before_the_first_checkpoint_the_largest_group_trains_and_of_equals_the_first() -> None:
    assert judge([OURS, THEIRS, THEIRS], None, deterministic=True).accepted == {THEIRS.digest}
    assert judge([THIRD, THEIRS, OURS], None, deterministic=True).accepted == {THIRD.digest}


def test_after_the_first_checkpoint_those_train_that_compute_as_the_run_did_however_few() -> None:
    verdict = judge([THEIRS, OURS, THEIRS], OURS, deterministic=True)
    assert verdict.accepted == {OURS.digest}
    (note,) = verdict.notes
    assert "left out 2 workers that compute differently from the others: numba on processor b, numba 1, numpy 2" in note
    assert "instead of numba on processor a" in note


def test_a_run_that_nobody_can_continue_alike_is_refused_and_all_kinds_are_named() -> None:
    with pytest.raises(ServiceError, match=r"with numba on processor a.*1 with numba on processor b.*1 with .*processor c"):
        judge([THEIRS, THIRD], OURS, deterministic=True)


def test_without_determinism_everyone_trains_and_the_difference_is_named() -> None:
    verdict = judge([THEIRS, OURS, THIRD], OURS, deterministic=False)
    assert verdict.accepted == {OURS.digest, THEIRS.digest, THIRD.digest}
    assert len(verdict.notes) == 2
    assert "another run may give other bits" in verdict.notes[0]


def digest_elsewhere(settings: str = "", **environment: str) -> str:
    """The digest for settings of the section `train`, computed in a process with these environment variables."""
    code = (
        "from pipeline import config; from pipeline.training import arithmetic; "
        f"print(arithmetic.numbers_of(config.Train(backend='numba', {settings})).digest)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=200, check=True
    )
    return found.stdout.strip()


def test_a_sample_has_the_same_bits_in_every_process() -> None:
    assert digest_elsewhere() == numbers_of(Train(backend="numba")).digest


@pytest.mark.turns(10, 46, of="another processor", together="what is compiled for it")
def test_a_sample_has_other_bits_when_compiled_for_another_processor() -> None:
    # Without fused multiply-add products are rounded before they are added. Half as many functions are compiled as for CBOW.
    here = numbers_of(Train(backend="numba", model="skipgram"))
    assert digest_elsewhere("model='skipgram'", NUMBA_CPU_NAME="generic") != here.digest


@pytest.mark.parametrize(
    "changed",
    [{"backend": "numpy"}, {"model": "skipgram"}, {"gradient": "exact"}, {"negative": 6}, {"vector_size": 99}, {"merge": "mean"},
     {"engine": "layers"}, {"engine": "layers", "optimizer": "adam"}],
    ids=str,
)  # fmt: skip
def test_a_sample_runs_what_is_configured(changed: dict[str, object]) -> None:
    backend = {"backend": "auto" if "engine" in changed else "numba"}
    assert numbers_of(Train(backend="numba")).digest != numbers_of(Train.model_validate(backend | changed)).digest


def test_settings_that_change_no_kernel_share_one_sample() -> None:
    known = KnownNumbers()
    found = known.of(Train(backend="numpy"))
    assert known.of(Train(backend="numpy", lanes=7, epochs=9, alpha=0.01, checkpoint_every=5000)) is found
    assert len(known) == 1


def test_a_background_warm_up_leaves_the_sample_where_the_first_round_finds_it() -> None:
    train, known = Train(backend="numpy", negative=7), KnownNumbers()
    arithmetic.warm_up(train, known).join(60)
    assert len(known) == 1
    assert known.of(train) == numbers_of(train)
    assert len(known) == 1


def test_a_backend_that_is_missing_is_an_error_of_the_first_round_not_of_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "w2v_core.kernels.cuda.cupy_kernels", raising=False)
    known = KnownNumbers()
    arithmetic.warm_up(Train(backend="cupy"), known).join(60)
    with pytest.raises(ImportError):
        known.of(Train(backend="cupy"))
