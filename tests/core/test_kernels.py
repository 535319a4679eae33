"""Every backend computes what the definition says, and keeps its promises about bits, bounds and errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.core.kernel_cases import Case, always, assert_as_defined, assert_writes_rows_as_defined, random_case, train
from w2v_core.kernels import Kernels, allocate_parameters, initial_parameters, load_kernels, padded_size
from w2v_core.kernels.initial import initial_rows

BACKENDS = ["numpy", "numba"]
MODELS = [("cbow", "word2vec"), ("cbow", "exact"), ("skipgram", "word2vec"), ("skipgram", "exact")]


@pytest.fixture(params=BACKENDS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return load_kernels(request.param)


SHAPES: dict[str, dict[str, Any]] = {
    "several blocks": {"rows": 400},
    "slice inside the stream": {"rows": 400, "start": 37, "stop": 300},
    "less than a group": {"rows": 5, "vocab_size": 3, "vector_size": 8, "window": 2},
    "less than a block": {"rows": 20, "start": 3, "stop": 17},
    "one target after a block": {"rows": 129, "vector_size": 100},
    "few words, so all repeat": {"rows": 200, "vocab_size": 3, "vector_size": 33},
    "wide window": {"rows": 200, "window": 60, "scale": 0.2},
    "context reaches far outside the slice": {"rows": 400, "window": 90, "start": 150, "stop": 160, "scale": 0.2},
}


@pytest.mark.parametrize(("model", "gradient"), MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_training_equals_the_definition(kernels: Kernels, model: str, gradient: str, shape: str) -> None:
    assert_as_defined(kernels, random_case(1, model=model, gradient=gradient, **SHAPES[shape]))


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("negative", range(1, 14))
def test_any_number_of_noise_words_equals_the_definition(kernels: Kernels, model: str, negative: int) -> None:
    assert_as_defined(kernels, random_case(negative, rows=60, model=model, negative=negative))


# Every number of vectors that a running sum keeps in registers, and rows that take two and three tiles of them.
@pytest.mark.parametrize("vector_size", [1, 9, 25, 47, *range(8, 113, 8), 200, 304])
def test_any_vector_size_equals_the_definition_and_padding_stays_zero(kernels: Kernels, vector_size: int) -> None:
    case = random_case(vector_size, rows=150, vector_size=vector_size, scale=2.0 if vector_size < 9 else 0.3)
    assert_as_defined(kernels, case, tolerance=2e-5)
    w_in_VD, w_out_VD, _ = train(kernels, case)
    assert not w_in_VD[:, vector_size:].any()
    assert not w_out_VD[:, vector_size:].any()


def test_seeded_random_slices_equal_the_definition(kernels: Kernels) -> None:
    generator = np.random.default_rng(7)
    for seed in range(25):
        rows = int(generator.integers(1, 280))
        start = int(generator.integers(0, rows))
        model, gradient = MODELS[seed % 4]
        shape = {"vocab_size": int(generator.integers(2, 60)), "vector_size": int(generator.integers(4, 60))}
        case = random_case(
            seed, rows=rows + 8, start=start, stop=int(generator.integers(start, rows + 1)), model=model, gradient=gradient,
            window=int(generator.integers(1, 12)), negative=int(generator.integers(1, 9)), **shape,
        )  # fmt: skip
        assert_as_defined(kernels, case)


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_noise_equal_to_every_target_trains_the_targets_alone(kernels: Kernels, model: str) -> None:
    case = random_case(2, rows=40, model=model)
    case.targets.tokens_N[:] = 3
    case = case.but(table_T=always([3] * 8))
    assert_as_defined(kernels, case)


@pytest.mark.parametrize("scale", [1e-3, 4.0, 9.0])
def test_loss_and_errors_hold_from_tiny_to_huge_logits(kernels: Kernels, scale: float) -> None:
    # At scale 9 logits pass ±500: σ is 0 or 1 to the last bit, and the loss is linear in the logit.
    case = random_case(4, rows=8, vocab_size=300, vector_size=16, window=2, scale=scale)
    assert_as_defined(kernels, case, tolerance=3e-6 * max(scale, 1.0) if scale > 0.1 else 1e-8)


def test_same_arguments_give_the_same_bits_alone_and_beside_other_threads(kernels: Kernels) -> None:
    cases = [random_case(seed, rows=500, model=model) for seed, model in ((1, "cbow"), (2, "cbow"), (3, "skipgram"))]
    alone = [train(kernels, case) for case in cases]
    with ThreadPoolExecutor(3) as pool:
        beside = list(pool.map(lambda case: train(kernels, case), cases * 3))
    for (a_in, a_out, a), (b_in, b_out, b) in zip(alone * 3, beside, strict=True):
        assert a_in.tobytes() == b_in.tobytes()
        assert a_out.tobytes() == b_out.tobytes()
        assert a == b


def test_another_seed_draws_other_noise(kernels: Kernels) -> None:
    case = random_case(1)
    other = case.but(seed=case.update.seed + 1)
    assert train(kernels, case)[2].loss_sum != train(kernels, other)[2].loss_sum


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("matrix", ["w_in_VD", "w_out_VD"])
def test_a_parameter_that_is_not_finite_shows_in_the_loss(kernels: Kernels, model: str, poison: float, matrix: str) -> None:
    case = random_case(1, rows=200, vocab_size=5, vector_size=8, model=model)
    getattr(case, matrix)[2, :4] = poison
    assert not np.isfinite(train(kernels, case)[2].loss_sum)


def test_the_rows_that_are_written_are_those_of_the_definition(kernels: Kernels) -> None:
    for seed, model in enumerate(["cbow", "cbow", "skipgram"]):
        case = random_case(seed, rows=300, vocab_size=900, model=model, start=20, stop=130 + 20 * seed)
        assert_writes_rows_as_defined(kernels, case)


def test_parameters_may_be_views_of_any_memory(kernels: Kernels, tmp_path: Any) -> None:
    case = random_case(3)
    mapped = np.memmap(tmp_path / "parameters", np.float32, "w+", shape=(2, *case.w_in_VD.shape), offset=4)
    mapped[0], mapped[1] = case.w_in_VD, case.w_out_VD
    expected_in, expected_out, expected = train(kernels, case)
    result = kernels.train_slice(mapped[0], mapped[1], case.targets, case.noise, case.update)
    assert result == expected
    np.testing.assert_array_equal(mapped[0], expected_in)
    np.testing.assert_array_equal(mapped[1], expected_out)


# ── arguments that break the contract ────────────────────────────────────────────────────────────────────────────────


def _with_row(case: Case, column: str, position: int, value: int) -> Case:
    array = getattr(case.targets, column).copy()
    array[position] = value
    return case.but(**{column: array})


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "word id too large": (
        lambda c: _with_row(c, "tokens_N", 17, 40), ValueError, r"position 17: expected a word id 0 … 39, found 40",
    ),
    "word id negative": (lambda c: _with_row(c, "tokens_N", 299, -1), ValueError, r"position 299: .* found -1"),
    "span before the stream": (lambda c: _with_row(c, "left_N", 2, 3), ValueError, r"target at position 2: .* leaves the stream"),
    "span behind the stream": (lambda c: _with_row(c, "right_N", 295, 5), ValueError, r"position 295: .* of 300 rows"),
    "noise outside": (
        lambda c: c.but(table_T=always([99] * 4)),
        ValueError, "noise.table_T: .* 0 … 39, drew 99",
    ),
    "noise negative": (lambda c: c.but(table_T=always([-1] * 4)), ValueError, "drew -1"),
    "own word outside": (
        lambda c: c.but(table_T=np.append(always([0] * 40), [0xFFFFFFFF << 32] * 99).astype(np.uint64)),
        ValueError, "noise.table_T: .* 0 … 39, drew (4[0-9]|[5-9][0-9]|1[0-3][0-9])",
    ),
    "table without cells": (lambda c: c.but(table_T=always([])), ValueError, "noise.table_T: .* found none"),
    "table of ids": (lambda c: c.but(table_T=np.zeros(3, np.int32)), TypeError, "noise.table_T: .* uint64"),
    "rates of other words": (
        lambda c: c.but(rates_V=np.ones(39, np.float32)),
        ValueError, "noise.rates_V: expected one rate for each of 40 words, found 39",
    ),
    "rates in float64": (
        lambda c: c.but(rates_V=np.ones(40)), TypeError, "noise.rates_V: expected .* float32",
    ),
    "slice beyond the stream": (lambda c: c.but(stop=301), ValueError, "expected 0 <= start <= stop <= 300"),
    "wrong dtype": (
        lambda c: c.but(w_in_VD=c.w_in_VD.astype(np.float64)),
        TypeError, "w_in_VD: expected a C-contiguous float32",
    ),
    "not contiguous": (
        lambda c: c.but(w_out_VD=np.asfortranarray(c.w_out_VD)), TypeError, "w_out_VD: .* contiguous: False",
    ),
    "row not padded": (
        lambda c: c.but(w_in_VD=c.w_in_VD[:, :20].copy(), w_out_VD=c.w_out_VD[:, :20].copy()),
        ValueError, r"one shape \(V, multiple of 8\)",
    ),
    "unequal columns": (lambda c: c.but(left_N=c.targets.left_N[:-1]), ValueError, "found 300, 299, 300 rows"),
    "unknown model": (
        lambda c: c.but(model="glove"), ValueError, "found model 'glove'",
    ),
    "no noise": (lambda c: c.but(negative=0), ValueError, "expected negative >= 1"),
    "α not finite": (
        lambda c: c.but(alphas=(0.05, np.nan)),
        ValueError, "expected finite learning rates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("fault", REFUSED)
def test_arguments_that_break_the_contract_are_refused_by_name(kernels: Kernels, model: str, fault: str) -> None:
    change, error, message = REFUSED[fault]
    case = change(random_case(1).but(model=model))
    with pytest.raises(error, match=message):
        train(kernels, case)


def test_read_only_parameters_are_refused(kernels: Kernels) -> None:
    case = random_case(1)
    case.w_out_VD.flags.writeable = False
    with pytest.raises(ValueError, match="w_out_VD: training works in place"):
        kernels.train_slice(case.w_in_VD, case.w_out_VD, case.targets, case.noise, case.update)


# ── merging ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _lanes(seed: int, lanes: int, rows: int = 50) -> tuple[np.ndarray, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    base = generator.normal(size=(rows, 24)).astype(np.float32)
    copies = [base + generator.normal(0, 0.1, base.shape).astype(np.float32) for _ in range(lanes)]
    for lane, copy in enumerate(copies):
        copy[generator.random(rows) < 0.3] = base[0]
        copy[lane] = base[lane]
    return base, copies


def _adasum(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    both, left_norm, right_norm = left @ right, left @ left, right @ right
    shared = both if both < 0 else both / 2
    left_factor = 1.0 - shared / left_norm if left_norm else 1.0
    right_factor = 1.0 - shared / right_norm if right_norm else 1.0
    return np.asarray(left_factor * left + right_factor * right)


@pytest.mark.parametrize("method", ["adasum", "mean"])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 5, 8])
def test_merge_folds_changes_pairwise_in_lane_order_and_writes_every_copy(kernels: Kernels, method: Any, lanes: int) -> None:
    base, copies = _lanes(1, lanes)
    changes = [(copy - base).astype(np.float64) for copy in copies]
    while len(changes) > 1:
        pairs = list(zip(changes[::2], changes[1::2], strict=False))
        fold = _adasum if method == "adasum" else np.add
        folded = [np.array([fold(a, b) for a, b in zip(left, right, strict=True)]) for left, right in pairs]
        changes = folded + changes[2 * len(folded) :]
    expected = base + changes[0] / (lanes if method == "mean" else 1)
    kernels.merge_rows(base, copies, method)
    np.testing.assert_allclose(base, expected, rtol=0, atol=2e-6)
    for copy in copies:
        assert copy.tobytes() == base.tobytes()


def test_one_lane_merges_to_its_own_bits(kernels: Kernels) -> None:
    base, (lane,) = _lanes(2, 1)
    before = lane.tobytes()
    kernels.merge_rows(base, [lane], "adasum")
    assert base.tobytes() == lane.tobytes() == before


@pytest.mark.parametrize("method", ["adasum", "mean"])
def test_merge_is_the_same_bits_however_the_rows_are_split(kernels: Kernels, method: Any) -> None:
    whole, whole_lanes = _lanes(3, 5)
    parts, part_lanes = _lanes(3, 5)
    kernels.merge_rows(whole, whole_lanes, method)
    for rows in (slice(31, 50), slice(0, 1), slice(1, 31)):
        kernels.merge_rows(parts[rows], [lane[rows] for lane in part_lanes], method)
    assert whole.tobytes() == parts.tobytes()


def test_adasum_adds_orthogonal_changes_averages_equal_ones_and_ignores_none(kernels: Kernels) -> None:
    base = np.zeros((3, 8), np.float32)
    left, right = base.copy(), base.copy()
    left[0, 0], right[0, 1] = 2.0, 3.0
    left[1], right[1] = 0.5, 0.5
    right[2] = 0.25
    kernels.merge_rows(base, [left, right], "adasum")
    np.testing.assert_array_equal(base[0], [2, 3, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(base[1], [0.5] * 8)
    np.testing.assert_array_equal(base[2], [0.25] * 8)


def test_adasum_frees_opposing_changes_from_each_other_before_it_adds_them(kernels: Kernels) -> None:
    base = np.zeros((2, 8), np.float32)
    left, right = base.copy(), base.copy()
    left[0, :2], right[0, :2] = (1, 0), (-1, 1)
    left[1], right[1] = 1.0, -0.5
    kernels.merge_rows(base, [left, right], "adasum")
    along_right, along_left = np.array([-1, 1]) * -0.5, np.array([1, 0]) * -1
    np.testing.assert_allclose(base[0, :2], ([1, 0] - along_right) + ([-1, 1] - along_left), atol=1e-6)
    np.testing.assert_array_equal(base[1], [0.0] * 8)


def test_merge_refuses_what_it_cannot_fold(kernels: Kernels) -> None:
    base, lanes = _lanes(1, 2)
    with pytest.raises(ValueError, match="expected merge method adasum or mean, found 'sum'"):
        kernels.merge_rows(base, lanes, "sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one lane"):
        kernels.merge_rows(base, [], "mean")
    with pytest.raises(TypeError, match=r"lane 1: expected C-contiguous float32 rows of shape \(50, 24\).* \(49, 24\)"):
        kernels.merge_rows(base, [lanes[0], lanes[1][1:]], "mean")


# ── parameters and choice of backend ─────────────────────────────────────────────────────────────────────────────────


def test_rows_are_padded_to_whole_vectors_and_aligned() -> None:
    assert [padded_size(size) for size in (1, 8, 9, 100, 300)] == [8, 8, 16, 104, 304]
    for matrix in allocate_parameters(7, 100):
        assert matrix.shape == (7, 104)
        assert matrix.dtype == np.float32
        assert matrix.ctypes.data % 64 == 0
        assert not matrix.any()
    with pytest.raises(ValueError, match="expected vector_size >= 1, found 0"):
        padded_size(0)


def test_initial_values_are_uniform_and_depend_on_seed_and_place_alone() -> None:
    w_in_VD, w_out_VD = initial_parameters(3000, 100, 5)
    assert not w_out_VD.any()
    assert not w_in_VD[:, 100:].any()
    values = w_in_VD[:, :100] * 100
    assert values.min() >= -0.5
    assert values.max() < 0.5
    observed = np.histogram(values, 100, (-0.5, 0.5))[0]
    # 99 degrees of freedom: four deviations of 14.1 around 99.
    assert abs(((observed - 3000.0) ** 2 / 3000).sum() - 99) < 57
    np.testing.assert_array_equal(initial_parameters(20, 100, 5)[0], w_in_VD[:20])
    assert (initial_parameters(20, 100, 6)[0][:, :100] != w_in_VD[:20, :100]).mean() > 0.99


@pytest.mark.parametrize("seed", [0, 5, -1, 1 << 63, (1 << 64) + 5])
def test_every_backend_begins_with_the_same_bits(kernels: Kernels, seed: int) -> None:
    w_in_RD = allocate_parameters(700, 100)[0]
    kernels.fill_initial(w_in_RD, 1 << 40, 100, seed)
    rows_R = np.arange(1 << 40, (1 << 40) + 700, dtype=np.uint64)
    assert w_in_RD[:, :100].tobytes() == initial_rows(rows_R, 100, seed).tobytes()
    assert not w_in_RD[:, 100:].any()


def test_backends_are_found_by_name_and_others_are_refused() -> None:
    assert [load_kernels(backend).name for backend in ("numpy", "numba")] == ["numpy", "numba"]
    assert load_kernels("auto").name in ("numba", "cupy")
    with pytest.raises(ValueError, match="expected backend auto, numba, numpy or cupy, found 'torch'"):
        load_kernels("torch")  # type: ignore[arg-type]
