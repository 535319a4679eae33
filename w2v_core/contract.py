"""What training on arrays takes and gives back: the records of its arguments, and what every backend of the kernels offers.

What is computed is defined by `w2v_core.reference`, with these same arguments; a backend may round differently, and nothing
else. The same arguments give the same bits on the same machine, in any thread and process. Kernels hold no state, and the
CPU kernels release the GIL, so that lanes may run as threads on parameters of their own.

    w_in_VD, w_out_VD   float32 (V, padded_size(vector_size)), C-contiguous; padding columns are zero and stay zero

Arrays may also be of the backend's device, see `Kernels.to_device`; NumPy arrays are then copied in and out at every call.
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
"""Of each lane in one call of `Kernels.train_lanes`: waves are numbered with 16 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """The targets start … stop − 1 of a stream of N rows; rows outside are read as context only."""

    tokens_N: NDArray[np.int32]
    """Word ids 0 … V − 1."""
    left_N: NDArray[np.uint8]
    """Context rows before each row; inside the stream for every target that is trained."""
    right_N: NDArray[np.uint8]
    """Context rows after each row."""
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """What the words' frequencies decide: what noise is drawn, and how far each word's rows move."""

    table_T: NDArray[np.uint64]
    """The cells of `sampler.noise_table`."""
    rates_V: NDArray[np.float32]
    """`sampler.word_rates`: what α is multiplied by where a word's rows move."""


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """How the targets of a slice move the parameters."""

    model: ModelName
    gradient: Gradient
    negative: int
    """Noise words of a target."""
    alphas: tuple[float, float]
    """α at the slice's start and at its stop; between them it falls linearly, block by block."""
    seed: int
    """Of the stream of random numbers that noise is drawn with."""


@dataclass(frozen=True)
class SliceResult:
    loss_sum: float
    """Negative-sampling loss summed over the examples, each before its update; not finite if any logit was not."""
    examples: int
    """CBOW: targets with at least one context word. Skip-gram: (target, context word) pairs."""


class Kernels(Protocol):
    """A backend. Its modules satisfy this: `load_kernels("numpy")` is the module `numpy_kernels`."""

    @property
    def name(self) -> str: ...

    def train_slice(self, w_in_VD: FloatRows, w_out_VD: FloatRows, targets: Slice, noise: Noise, update: Update) -> SliceResult:
        """Trains the targets of a slice in place.

        Raises ValueError or TypeError for arrays that break the contract, naming the first position and value. A noise
        word outside the vocabulary is found only when it is drawn: then the parameters are half trained.
        """
        ...

    def train_lanes(
        self, w_in_VD: FloatRows, w_out_VD: FloatRows, lanes: Sequence[Slice], noise: Noise, update: Update, threads: int
    ) -> list[SliceResult]:
        """Trains all lanes' slices in place on one copy of the parameters, in waves; the result of each lane.

        What a wave gives depends on the lanes, never on `threads`: the same bits for any number of them on a CPU. The seed of
        lane l is `stream_seed(update.seed, l)`. CBOW only. Raises as `train_slice` does, and for a slice of more than
        MOST_LANE_TARGETS.
        """
        ...

    def merge_rows(self, base_RD: FloatRows, lanes: Sequence[FloatRows], method: Merge) -> None:
        """Folds the lanes' changes since `base_RD`, row by row, and writes the merged rows to the base and every lane.

        Changes are folded pairwise in lane order, (0,1), (2,3) …, an odd one passes to the next level. Each row is
        independent of the others, so any split of the rows among callers gives the same bits.
        """
        ...

    def to_device(self, array: Any) -> Any:
        """The array where these kernels work without copying: in their device's memory, or as it is on a CPU."""
        ...

    def to_host(self, array: Any) -> NDArray[Any]:
        """The array as NumPy's, once what writes it is done; a NumPy array is returned as it is."""
        ...
