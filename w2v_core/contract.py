"""The contract of the kernels: records for the arguments of training, and the functions that every backend offers.

`w2v_core.reference` defines the computation, with these same arguments; a backend may differ in rounding only. On a CPU, the
same arguments give the same bits on the same machine, in any thread and any process. Kernels hold no state but what a caller
keeps for them in a `Workroom`, and the CPU kernels release the GIL, so lanes may run as threads, each on its own parameters.

    w_in_VD, w_out_VD   float32 (V, padded_size(vector_size)), C-contiguous; padding columns are zero and stay zero

Arrays may also live on the backend's device (`Kernels.to_device`); NumPy arrays are then copied in and out at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

ModelName = Literal["cbow", "skipgram"]
Gradient = Literal["word2vec", "exact"]
Merge = Literal["adasum", "mean"]
FloatRows = NDArray[np.float32]
MOST_LANE_TARGETS = 1 << 22
"""Most targets of one lane in a call of `Kernels.train_lanes`, which numbers its waves with 16 bits."""
MOST_STRETCHES = 1 << 14
"""Most stretches in a call of `Kernels.train_copies`: each has a wave of its own, however few targets."""


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The targets start … stop − 1 of a stream of N rows; rows outside this range are read as context only."""

    tokens_N: NDArray[np.int32]
    """Word ids 0 … V − 1."""
    left_N: NDArray[np.uint8]
    """Context rows before each row. The context of every trained target lies inside the stream."""
    right_N: NDArray[np.uint8]
    """Context rows after each row."""
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """What follows from the words' frequencies: which noise is drawn, and how far each word's rows move."""

    table_T: NDArray[np.uint64]
    """The cells of `sampler.noise_table`."""
    rates_V: NDArray[np.float32]
    """`sampler.word_rates`: the factor by which each word scales α when its rows move."""


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """How the targets of a slice move the parameters."""

    model: ModelName
    gradient: Gradient
    negative: int
    """Noise words per target."""
    alphas: tuple[float, float]
    """α at the slice's start and at its stop; it changes linearly between them, block by block."""
    seed: int
    """Seed of the random numbers that draw the noise."""


@dataclass(frozen=True)
class SliceResult:
    loss_sum: float
    """Negative-sampling loss summed over the examples, each taken before its update; not finite if any logit was not."""
    examples: int
    """CBOW: targets with at least one context word. Skip-gram: (target, context word) pairs."""


@dataclass(eq=False)
class Workroom:
    """What a backend keeps from one call to the next, memory and threads: getting them takes as long as training some thousand
    targets. For one call at a time; no bit of a result depends on it. To be closed when no call uses it any more."""

    kept: Any = None
    """The backend's own, with a `close` method."""

    def close(self) -> None:
        if self.kept is not None:
            self.kept.close()
            self.kept = None


@dataclass(frozen=True, slots=True, eq=False)
class LocalTraining:
    """A copy of the parameters, and what it is trained on in S stretches, each of which may end with a merge."""

    w_in_VD: FloatRows
    w_out_VD: FloatRows
    lanes: Sequence[Slice]
    """The targets of each of its L lanes in all stretches."""
    bounds_SL: NDArray[np.int64]
    """(S + 1, L): in stretch s, lane l trains the targets bounds[s, l] … bounds[s + 1, l] − 1 of its slice."""
    updates: Sequence[Update]
    """One for each stretch. They differ in α and seed only."""


class TrainCopies(Protocol):
    def __call__(
        self, bases: tuple[FloatRows, FloatRows], copies: Sequence[LocalTraining], merged_rows: Sequence[int], noise: Noise,
        method: Merge, threads: int, room: Workroom,
    ) -> tuple[list[list[list[SliceResult]]], float]:  # fmt: skip
        """Trains all copies in place, stretch after stretch, and merges them in between; the same bits as by calls of
        `train_lanes` (`train_slice` for a copy with one lane) and of `merge_rows` for both `bases`.

        `merged_rows`: how many rows are merged after each stretch; 0 = none. CBOW only. Returns the results by stretch, copy and
        lane, and the seconds of merging and of waiting for it. Raises as `train_lanes` and `merge_rows` do, before anything is
        trained (but a bad noise word is found when it is drawn); and ValueError for more than MOST_STRETCHES stretches, if those
        of a lane together have more than MOST_LANE_TARGETS targets, or if a copy's lanes share stretches so unequally that these
        have more waves than can be numbered.
        """
        ...


class Kernels(Protocol):
    """A backend. A backend is a module that satisfies this protocol: `load_kernels("numpy")` is `numpy_kernels`."""

    @property
    def name(self) -> str: ...

    def train_slice(self, w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> SliceResult:
        """Trains the targets of a slice in place; returns their loss and number of examples.

        Raises ValueError or TypeError for arrays that break the contract, naming the first position and value. A noise
        word outside the vocabulary is found only when it is drawn; the parameters are then half trained.
        """
        ...

    def train_lanes(
        self, w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], noise: Noise, update: Update, threads: int,
        room: Workroom,
    ) -> list[SliceResult]:  # fmt: skip
        """Trains all lanes' slices in place on one copy of the parameters, in waves; returns the result of each lane.

        The outcome of a wave depends on the lanes, never on `threads`: on a CPU any number of threads gives the same bits.
        The seed of lane l is `stream_seed(update.seed, l)`. CBOW only. Raises as `train_slice` does, and ValueError for a
        slice of more than MOST_LANE_TARGETS targets.
        """
        ...

    @property
    def train_copies(self) -> TrainCopies | None:
        """None if a backend trains and merges call by call."""
        ...

    def merge_rows(self, base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
        """Merges the lanes' changes since `base_RD`, row by row, and writes the merged rows to the base and to every lane.

        Changes are folded pairwise in lane order, (0,1), (2,3) …; an odd one out passes to the next level. Rows are
        independent of each other, so any split of the rows among callers gives the same bits.
        """
        ...

    def fill_initial(self, w_in_RD: FloatRows, first_row: int, vector_size: int, seed: int) -> None:
        """Writes the initial values of W_in's rows from `first_row` on into host memory, which must be zero.

        Every backend writes the same bits: `initial.initial_rows` (W_out starts as zeros).
        """
        ...

    def to_device(self, array: Any) -> Any:
        """The array in the memory where these kernels work: the device's, or, on a CPU, the array itself."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """The array as a NumPy array, once all pending writes to it are done; a NumPy array is returned as it is."""
        ...
