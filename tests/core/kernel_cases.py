"""Small random training slices and the comparison of a backend with the definition, for the kernel tests."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from w2v_core import reference
from w2v_core.contract import FloatRows, Kernels, Noise, Slice, SliceResult, Update
from w2v_core.kernels import allocate_parameters


@dataclass(frozen=True)
class Case:
    """Arguments of `train_slice`; parameters are copied by `train`, so a case can be used again."""

    w_in_VD: FloatRows
    w_out_VD: FloatRows
    targets: Slice
    noise: Noise
    update: Update

    def but(self, **fields: Any) -> Case:
        """The same case with some fields, its own or those of its records, changed."""
        records: dict[str, Any] = {"targets": self.targets, "noise": self.noise, "update": self.update}
        for key, value in fields.items():
            owner = next((name for name, record in records.items() if hasattr(record, key)), None)
            records |= {owner: dataclasses.replace(records[owner], **{key: value})} if owner else {key: value}
        return dataclasses.replace(self, **records)


def always(words: Any) -> NDArray[np.uint64]:
    """A noise table whose cells yield these int32 words, whatever the low bits of a draw are."""
    return np.asarray(words, np.int32).astype(np.uint32).astype(np.uint64)


def random_case(
    seed: int, *, rows: int = 300, vocab_size: int = 40, vector_size: int = 20, window: int = 5, start: int = 0,
    stop: int | None = None, model: str = "cbow", gradient: str = "word2vec", negative: int = 5, scale: float = 0.5,
) -> Case:  # fmt: skip
    """A stream with random spans, some empty, that stay inside the stream; parameters are normal with deviation `scale`."""
    generator = np.random.default_rng(seed)
    w_in_VD, w_out_VD = allocate_parameters(vocab_size, vector_size)
    for matrix in (w_in_VD, w_out_VD):
        matrix[:, :vector_size] = generator.normal(0.0, scale, (vocab_size, vector_size))
    positions = np.arange(rows)
    left_N = np.minimum(generator.integers(0, window + 1, rows), positions).astype(np.uint8)
    right_N = np.minimum(generator.integers(0, window + 1, rows), rows - 1 - positions).astype(np.uint8)
    empty = generator.random(rows) < 0.1
    left_N[empty] = right_N[empty] = 0
    tokens_N = generator.integers(0, vocab_size, rows).astype(np.int32)
    # The first and the last word of the vocabulary, at places that every slice trains.
    tokens_N[rows // 2], tokens_N[rows // 2 + 1] = 0, vocab_size - 1
    update = Update(model, gradient, negative, (0.05, 0.02), int(generator.integers(1 << 62)))  # type: ignore[arg-type]
    rates_V = generator.uniform(0.3, 2.0, vocab_size).astype(np.float32)
    thresholds = generator.integers(0, 1 << 32, vocab_size).astype(np.uint64)
    table_T = thresholds << np.uint64(32) | always(generator.integers(0, vocab_size, vocab_size))
    targets = Slice(tokens_N, left_N, right_N, start, rows if stop is None else stop)
    return Case(w_in_VD, w_out_VD, targets, Noise(table_T, rates_V), update)


def train(kernels: Kernels, case: Case) -> tuple[FloatRows, FloatRows, SliceResult]:
    """(W_in, W_out, result) after training copies of the case's parameters."""
    w_in_VD, w_out_VD = case.w_in_VD.copy("K"), case.w_out_VD.copy("K")
    result = kernels.train_slice(w_in_VD, w_out_VD, case.targets, case.noise, case.update)
    return w_in_VD, w_out_VD, result


def define(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64], float, int]:
    """(W_in, W_out, loss, examples) that the definition gives."""
    w_in_VD, w_out_VD = case.w_in_VD.astype(np.float64), case.w_out_VD.astype(np.float64)
    loss, examples = reference.train_slice(w_in_VD, w_out_VD, case.targets, case.noise, case.update)
    return w_in_VD, w_out_VD, loss, examples


def assert_as_defined(kernels: Kernels, case: Case, tolerance: float = 1e-5) -> None:
    """Raises unless the backend's parameters are within `tolerance` of the definition's, and the loss within 1e-6 relative."""
    w_in_VD, w_out_VD, result = train(kernels, case)
    expected_in, expected_out, loss, examples = define(case)
    assert result.examples == examples
    np.testing.assert_allclose(w_in_VD, expected_in, rtol=0, atol=tolerance)
    np.testing.assert_allclose(w_out_VD, expected_out, rtol=0, atol=tolerance)
    np.testing.assert_allclose(result.loss_sum, loss, rtol=1e-6, atol=1e-9)
    moved = np.abs(expected_in - case.w_in_VD).max()
    assert examples == 0 or moved > 100 * tolerance, f"the case moves W_in by {moved:.1e} only, too little to tell"


def assert_writes_rows_as_defined(kernels: Kernels, case: Case) -> None:
    """Raises unless training moved the rows that the definition moves. Only rows of W_in that were read without being context
    of any target may carry rounding errors, from differences of running sums."""
    found, expected = train(kernels, case), define(case)
    moved_in, moved_out = ((found[matrix] != before).any(1) for matrix, before in enumerate((case.w_in_VD, case.w_out_VD)))
    due_in, due_out = ((expected[matrix] != before).any(1) for matrix, before in enumerate((case.w_in_VD, case.w_out_VD)))
    assert 0 < due_in.sum() < len(due_in)
    assert 0 < due_out.sum() < len(due_out)
    np.testing.assert_array_equal(moved_out, due_out)
    assert not (due_in & ~moved_in).any()
    most = int(max(case.targets.left_N.max(), case.targets.right_N.max()))
    near = case.targets.tokens_N[max(0, case.targets.start - most) : case.targets.stop + most]
    assert np.isin(np.flatnonzero(moved_in & ~due_in), near).all()
