"""The CUDA kernels on a GPU: what test_cuda_source checks on the CPU, on the device itself. Skipped where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.kernel_cases import Case, always, assert_as_defined, random_case, train
from w2v_core.contract import Noise, Slice, Update
from w2v_core.kernels import initial_parameters, load_kernels, numpy_kernels
from w2v_core.sampler import noise_table

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install -e '.[gpu12]' or '.[gpu13]'")
if not cupy.cuda.is_available():
    pytest.skip("CuPy finds no CUDA device", allow_module_level=True)

pytestmark = pytest.mark.gpu


class Sequential:
    """The CuPy kernels in the mode that equals the definition."""

    def __init__(self, **options: Any) -> None:
        self.kernels: Any = load_kernels("cupy")
        self.options = options or {"mode": "sequential"}

    name = "cupy"

    def train_slice(self, *arguments: Any) -> Any:
        return self.kernels.train_slice(*arguments, **self.options)

    def merge_rows(self, *arguments: Any) -> None:
        self.kernels.merge_rows(*arguments)


MODELS = [("cbow", "word2vec"), ("cbow", "exact"), ("skipgram", "word2vec")]
SHAPES: dict[str, dict[str, Any]] = {
    "several blocks": {"rows": 900},
    "slice inside the stream": {"rows": 400, "start": 37, "stop": 300},
    "less than a group": {"rows": 5, "vocab_size": 3, "vector_size": 8, "window": 2},
    "one target after a block": {"rows": 129, "vector_size": 100},
    "few words, so all repeat": {"rows": 200, "vocab_size": 3, "vector_size": 33},
    "wide window": {"rows": 300, "window": 120, "scale": 0.2},
    "several strips of a row": {"rows": 300, "vector_size": 512, "scale": 0.1, "negative": 12},
}


@pytest.mark.parametrize(("model", "gradient"), MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sequential_training_equals_the_definition(model: str, gradient: str, shape: str) -> None:
    assert_as_defined(Sequential(), random_case(1, model=model, gradient=gradient, **SHAPES[shape]), tolerance=2e-5)


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_sequential_training_gives_the_same_bits_every_time(model: str) -> None:
    case = random_case(5, rows=2000, vocab_size=6, model=model, scale=0.2)
    runs = [train(Sequential(), case) for _ in range(3)]
    assert len({(w_in_VD.tobytes(), w_out_VD.tobytes(), result) for w_in_VD, w_out_VD, result in runs}) == 1


def zipf_case(rows: int, model: str) -> Case:
    """Pairs of neighbours that predict each other, with frequencies as in text; something to learn."""
    generator = np.random.default_rng(1)
    share = 1 / (np.arange(1000) + 2.7)
    half = generator.choice(1000, rows // 2, p=share / share.sum())
    tokens_N = np.stack([2 * half, 2 * half + 1], 1).reshape(-1).astype(np.int32)
    positions = np.arange(len(tokens_N))
    left_N, right_N = (np.minimum(edge, 2).astype(np.uint8) for edge in (positions, positions[::-1]))
    w_in_VD, w_out_VD = initial_parameters(2000, 100, seed=1)
    table_T = noise_table(np.bincount(tokens_N, minlength=2000).astype(np.int64), 0.75)
    targets, noise = Slice(tokens_N, left_N, right_N, 0, len(tokens_N)), Noise(table_T, np.ones(2000, np.float32))
    return Case(w_in_VD, w_out_VD, targets, noise, Update(model, "word2vec", 5, (0.05, 0.02), seed=3))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
def test_concurrent_training_learns_as_sequential_training_does(model: str) -> None:
    case = zipf_case(200_000, model)
    expected = train(Sequential(), case)
    untrained = np.log(2) * (1 + case.update.negative)
    for blocks in (1, 8):
        found = train(Sequential(mode="concurrent", thread_blocks=blocks), case)
        assert found[2].examples == expected[2].examples
        assert found[2].loss_sum < 0.9 * untrained * found[2].examples
        assert found[2].loss_sum == pytest.approx(expected[2].loss_sum, rel=0.05)
        cosine = np.sum(found[0] * expected[0]) / np.linalg.norm(found[0]) / np.linalg.norm(expected[0])
        assert cosine > 0.9


def test_device_arrays_are_trained_in_place() -> None:
    kernels: Any = load_kernels("cupy")
    case = random_case(4)
    expected = train(Sequential(), case)
    w_in, w_out = kernels.to_device(case.w_in_VD), kernels.to_device(case.w_out_VD)
    result = kernels.train_slice(w_in, w_out, case.targets, case.noise, case.update, mode="sequential")
    assert result == expected[2]
    np.testing.assert_array_equal(kernels.to_host(w_in), expected[0])
    np.testing.assert_array_equal(kernels.to_host(w_out), expected[1])


@pytest.mark.parametrize("method", ["adasum", "mean"])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_merging_equals_numpy(method: Any, lanes: int) -> None:
    generator = np.random.default_rng(lanes)
    base = generator.normal(size=(3000, 104)).astype(np.float32)
    copies = [base + generator.normal(scale=0.1, size=base.shape).astype(np.float32) for _ in range(lanes)]
    expected = base.copy()
    numpy_kernels.merge_rows(expected, [copy.copy() for copy in copies], method)
    load_kernels("cupy").merge_rows(base, copies, method)
    np.testing.assert_allclose(base, expected, rtol=0, atol=1e-6)
    assert all(copy.tobytes() == base.tobytes() for copy in copies)


def test_bad_input_is_named() -> None:
    case = random_case(1)
    case.targets.tokens_N[60] = 40
    with pytest.raises(ValueError, match=r"position 60: expected a word id 0 … 39, found 40"):
        train(Sequential(), case)
    poisoned = random_case(1).but(table_T=always([3, 40]))
    with pytest.raises(ValueError, match=r"noise.table_T: expected word ids 0 … 39, drew 40"):
        train(Sequential(), poisoned)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_shows_in_the_loss(poison: float) -> None:
    case = random_case(1, rows=200, vocab_size=5, vector_size=8)
    case.w_out_VD[2, :4] = poison
    assert not np.isfinite(train(Sequential(mode="concurrent"), case)[2].loss_sum)
