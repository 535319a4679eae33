"""Training loops of the layered engine: `Trainer` for matrices in memory, `train_layers` for the pipeline.

Every random number comes from (seed, epoch, purpose): initial parameters, the order of the examples and the noise words are
separate purposes (`Purpose`). An epoch is therefore a pure function of the state before it, and an interrupted run continues
from the state after its last finished epoch with the same bits.

`train_layers` is `engine: layers`: one lane, exact gradients, SGD or Adam. The kernels are fast; this engine explains them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from w2v_core.textbook.contexts import PADDING, Batch, matrix_batches
from w2v_core.textbook.layers import Array
from w2v_core.textbook.models import MODELS, LayeredModel, SamplingModel
from w2v_core.textbook.optimizers import SGD, Optimizer, RowAdam
from w2v_core.textbook.unigram import UnigramSampler

EpochBatches = Callable[[int, np.random.Generator], Iterable[Batch]]
"""From (epoch, generator that draws the epoch's order) to its batches: contexts (B, C) and target (B,), NumPy, int32."""


class Purpose(IntEnum):
    """What a generator is used for; different purposes have independent generators."""

    PARAMETERS = 0
    ORDER = 1
    NOISE = 2


def generator_for(seed: int, epoch: int, purpose: Purpose) -> np.random.Generator:
    """The generator of (seed, epoch, purpose). Epoch 0 is the first; parameters are drawn before it."""
    return np.random.default_rng([seed, epoch, int(purpose)])


@dataclass(frozen=True)
class LossReport:
    """The progress of a run; `loss` is the mean over the examples since the previous report, or since a restart."""

    epoch: int
    iteration: int
    """Batches done since the start of the first epoch."""
    seconds: float
    """Since this process began to train."""
    loss: float
    examples: int
    """Number of those examples; the first report after a restart may have fewer than the others."""


@dataclass
class Trainer:
    """Trains any model of `models` on matrices in memory and records the loss; `plot` draws the `records`."""

    model: LayeredModel
    optimizer: Optimizer
    xp: Any = np
    records: list[LossReport] = field(default_factory=list)
    _meter: _Meter | None = None

    def fit(
        self,
        contexts: Array,
        target: Array,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        seed: int = 1,
        eval_interval: int = 20,
    ) -> list[float]:
        """The mean loss of each epoch, float64; the model's parameters change in place.

        contexts (N, C) and target (N,) are NumPy arrays; every epoch sees each example once, in a new order. A record is
        added every `eval_interval` batches. A second call continues the training and the counts of epochs and iterations.
        Raises ValueError for unequal or zero lengths, FloatingPointError for a loss that is not finite.
        """
        if len(contexts) != len(target) or not len(target):
            raise ValueError(
                f"fit: expected a target for each contexts row, found {len(target)} targets and {len(contexts)} rows"
            )
        if self._meter is None:
            self._meter = _Meter(self.records.append)
        self._meter.interval = _checked_interval("eval_interval", eval_interval)
        losses = []
        for epoch in range(self._meter.epoch, self._meter.epoch + epochs):
            if hasattr(self.model, "sampler"):
                self.model.sampler.generator = generator_for(seed, epoch, Purpose.NOISE)
            batches = matrix_batches(contexts, target, batch_size, generator_for(seed, epoch, Purpose.ORDER))
            losses.append(_run_epoch(self.model, self.optimizer, batches, self._meter, self.xp))
        return losses

    def plot(self, path: str | Path) -> None:
        """Writes the loss curve to `path`, in the format of its suffix. Needs matplotlib, which is imported only here.

        Raises ValueError if there are no records.
        """
        if not self.records:
            raise ValueError("plot: expected at least one record, found none; call fit with a smaller eval_interval")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([record.iteration for record in self.records], [record.loss for record in self.records])
        axes.set(xlabel="iteration", ylabel="loss")
        figure.savefig(path)


@dataclass(frozen=True)
class Trained:
    """The result of `train_layers`; its matrices are NumPy arrays, (V, D)."""

    w_in: npt.NDArray[Any]
    w_out: npt.NDArray[Any]
    epoch_losses: tuple[float, ...]
    """The mean loss of an example in each epoch, float64, from epoch 0 on, including the epochs before a restart."""


TrainerState = dict[str, npt.NDArray[Any]]
"""All that a restart needs, as plain NumPy arrays: parameters, moments, steps, losses of the finished epochs."""


def train_layers(
    model: str,
    counts: npt.ArrayLike,
    batches: EpochBatches,
    *,
    epochs: int,
    seed: int,
    vector_size: int = 100,
    negative: int = 5,
    ns_exponent: float = 0.75,
    optimizer: str = "adam",
    learning_rate: float = 0.001,
    final_learning_rate: float | None = None,
    xp: Any = np,
    every: int = 1000,
    on_progress: Callable[[LossReport], None] | None = None,
    after_epoch: Callable[[TrainerState], None] | None = None,
    state: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Trained:
    """Word vectors trained by the layered engine.

    `model`: cbow or skipgram; `counts`: (V,) by word id, for the noise distribution; `batches`: see EpochBatches (it draws its
    order from the generator given). The learning rate applies to the mean loss of a batch, not to the loss of each example as
    in the kernels, so SGD needs one that is about batch_size times as high; if `final_learning_rate` is given, it changes
    linearly from epoch to epoch. `on_progress` is called every `every` batches, `after_epoch` after each epoch with a copy of
    the state; given such a `state`, a run continues with the same bits as if it had not stopped. `xp` is the array module:
    numpy, or cupy to train on its current device.
    Raises ValueError for an unknown name, an epoch without batches or word ids outside the vocabulary, FloatingPointError
    for a loss that is not finite.
    """
    counts_V = np.asarray(counts)
    stack = _build_model(model, counts_V, vector_size, negative, ns_exponent, seed, xp)
    stepper = _build_optimizer(optimizer, stack, learning_rate)
    losses: list[float] = []
    meter = _Meter(on_progress, _checked_interval("every", every))
    if state is not None:
        losses = _restore(stack, stepper, state, xp)
        meter.epoch, meter.iteration = len(losses), int(state["iterations"])
    for epoch in range(len(losses), epochs):
        stack.sampler.generator = generator_for(seed, epoch, Purpose.NOISE)
        stepper.learning_rate = epoch_rate(learning_rate, final_learning_rate, epoch, epochs)
        checked = _checked(batches(epoch, generator_for(seed, epoch, Purpose.ORDER)), len(counts_V), epoch)
        losses.append(_run_epoch(stack, stepper, checked, meter, xp))
        if after_epoch is not None:
            after_epoch(_snapshot(stack, stepper, losses, meter.iteration))
    w_in, w_out = (_to_host(param) for param in stack.params)
    return Trained(w_in, w_out, tuple(losses))


def epoch_rate(first: float, final: float | None, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, on a straight line from `first` to `final`; `first` if `final` is None."""
    if final is None or epochs < 2:
        return first
    return first + (final - first) * epoch / (epochs - 1)


def _build_model(
    name: str, counts_V: Array, vector_size: int, negative: int, ns_exponent: float, seed: int, xp: Any
) -> SamplingModel:
    if name not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, found {name!r}")
    generator = generator_for(seed, 0, Purpose.PARAMETERS)
    sampler = UnigramSampler(counts_V, ns_exponent, negative, generator=generator, xp=xp)
    built: SamplingModel = MODELS[name](len(counts_V), vector_size, sampler, generator=generator, xp=xp)
    return built


def _build_optimizer(name: str, model: SamplingModel, learning_rate: float) -> Optimizer:
    if name == "sgd":
        return SGD(learning_rate)
    if name == "adam":
        return RowAdam(model.embeddings, learning_rate)
    raise ValueError(f"optimizer: expected sgd or adam, found {name!r}")


def _checked(batches: Iterable[Batch], vocab_size: int, epoch: int) -> Iterable[Batch]:
    """The batches, checked one by one: for an id out of range, NumPy or CuPy might read some other row."""
    for number, (contexts, target) in enumerate(batches):
        lowest_target, lowest_context = int(target.min()), int(contexts.min())
        highest = max(int(contexts.max()), int(target.max()))
        if lowest_target < 0 or lowest_context < PADDING or highest >= vocab_size:
            raise ValueError(
                f"epoch {epoch}, batch {number}: expected word ids 0 … {vocab_size - 1} (contexts also {PADDING}, padding), "
                f"found ids from {min(lowest_target, lowest_context)} to {highest}; "
                "the shards and the vocabulary are not of the same run"
            )
        yield contexts, target


def _run_epoch(model: LayeredModel, optimizer: Optimizer, batches: Iterable[Batch], meter: _Meter, xp: Any) -> float:
    """The mean loss of an example over one pass; parameters are changed in place and left up to date."""
    total, examples = 0.0, 0
    for contexts, target in batches:
        loss = model.forward(xp.asarray(contexts), xp.asarray(target))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"epoch {meter.epoch}, iteration {meter.iteration}: expected a finite loss, found {loss}; "
                "lower the learning rate and start again"
            )
        model.backward()
        optimizer.update(model.params, model.grads)
        total, examples = total + loss * len(target), examples + len(target)
        meter.add(loss, len(target))
    optimizer.flush()
    if not examples:
        raise ValueError(f"epoch {meter.epoch}: expected at least one batch, found none; is the shard empty?")
    meter.epoch += 1
    return total / examples


class _Meter:
    """Counts iterations and epochs, and reports the mean loss of an example every `interval` iterations."""

    def __init__(self, report: Callable[[LossReport], None] | None, interval: int = 1000) -> None:
        self.report, self.interval = report, interval
        self.epoch, self.iteration = 0, 0
        self._started_s = time.perf_counter()
        self._total, self._examples = 0.0, 0

    def add(self, loss: float, examples: int) -> None:
        self.iteration += 1
        self._total, self._examples = self._total + loss * examples, self._examples + examples
        if self.iteration % self.interval == 0:
            if self.report is not None:
                seconds = time.perf_counter() - self._started_s
                loss = self._total / self._examples
                self.report(LossReport(self.epoch, self.iteration, seconds, loss, self._examples))
            self._total, self._examples = 0.0, 0


def _checked_interval(name: str, iterations: int) -> int:
    if iterations < 1:
        raise ValueError(f"{name}: expected a report every 1 or more iterations, found {iterations}")
    return iterations


# --- state between epochs ---------------------------------------------------------------------------------------------


def _snapshot(model: SamplingModel, optimizer: Optimizer, losses: Sequence[float], iterations: int) -> TrainerState:
    arrays = {"w_in": model.params[0], "w_out": model.params[1], **optimizer.state()}
    state = {name: _to_host(array).copy() for name, array in arrays.items()}
    return state | {
        "epoch_losses": np.asarray(losses, dtype=np.float64),
        "iterations": np.asarray(iterations, dtype=np.int64),
    }


def _restore(model: SamplingModel, optimizer: Optimizer, state: Mapping[str, npt.NDArray[Any]], xp: Any) -> list[float]:
    """Restores a state in place and returns the losses of its finished epochs."""
    expected = {"w_in", "w_out", "epoch_losses", "iterations"} | optimizer.state().keys()
    if expected != state.keys():
        raise ValueError(
            f"state: expected {', '.join(sorted(expected))}, found {', '.join(sorted(state))}; "
            "it was saved with another optimizer: continue with that one or start again"
        )
    for param, name in zip(model.params, ("w_in", "w_out"), strict=True):
        if state[name].shape != param.shape:
            raise ValueError(
                f"state: expected {name} of shape {param.shape}, found {state[name].shape}; "
                "vocabulary or vector_size changed: start again"
            )
        param[:] = xp.asarray(state[name])
    optimizer.restore({name: array if array.ndim == 0 else xp.asarray(array) for name, array in state.items()})
    return [float(loss) for loss in state["epoch_losses"]]


def _to_host(array: Array) -> npt.NDArray[Any]:
    host: npt.NDArray[Any] = array if isinstance(array, np.ndarray) else array.get()
    return host
