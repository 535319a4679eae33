from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.device_arrays import device_module
from w2v_core.textbook.contexts import Batch, create_contexts_target, matrix_batches
from w2v_core.textbook.models import CBOW, SimpleCBOW
from w2v_core.textbook.optimizers import SGD, Adam, RowAdam
from w2v_core.textbook.trainer import LossReport, Purpose, Trained, Trainer, epoch_rate, generator_for, train_layers
from w2v_core.textbook.unigram import UnigramSampler

VOCAB = 12
CORPUS = np.concatenate([np.arange(VOCAB)] * 30 + [np.random.default_rng(0).integers(0, VOCAB, 100)]).astype(np.int32)
CONTEXTS, TARGET = create_contexts_target(CORPUS, 2)
COUNTS = np.bincount(CORPUS)


def epoch_batches(epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
    return matrix_batches(CONTEXTS, TARGET, 20, generator)


def train(**options: Any) -> Trained:
    settings: dict[str, Any] = {"model": "cbow", "epochs": 3, "seed": 5, "vector_size": 8, "learning_rate": 0.01}
    settings |= options
    return train_layers(settings.pop("model"), COUNTS, settings.pop("batches", epoch_batches), **settings)


def assert_same_bits(found: Trained, expected: Trained) -> None:
    np.testing.assert_array_equal(found.w_in, expected.w_in)
    np.testing.assert_array_equal(found.w_out, expected.w_out)
    assert found.epoch_losses == expected.epoch_losses


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.01), ("sgd", 2.0)])
def test_the_loss_falls_and_vectors_come_back(model: str, optimizer: str, rate: float) -> None:
    trained = train(model=model, optimizer=optimizer, learning_rate=rate, epochs=12)
    assert trained.w_in.shape == trained.w_out.shape == (VOCAB, 8)
    assert trained.w_in.dtype == np.float32
    untrained = 6 * np.log(2) * (1 if model == "cbow" else 4)
    assert trained.epoch_losses[-1] < 0.75 * untrained
    assert len(trained.epoch_losses) == 12


@pytest.mark.parametrize("model", ["cbow", "skipgram"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_run_stopped_between_epochs_continues_with_the_same_bits(model: str, optimizer: str, stop_after: int) -> None:
    states: list[dict[str, Any]] = []
    whole = train(model=model, optimizer=optimizer, after_epoch=states.append)
    assert [len(state["epoch_losses"]) for state in states] == [1, 2, 3]
    resumed = train(model=model, optimizer=optimizer, state=states[stop_after - 1])
    assert_same_bits(resumed, whole)


def test_a_state_survives_a_file(tmp_path: Path) -> None:
    states: list[dict[str, Any]] = []
    whole = train(after_epoch=states.append)
    np.savez(tmp_path / "state.npz", **states[0])
    with np.load(tmp_path / "state.npz") as stored:
        assert_same_bits(train(state=dict(stored)), whole)


def test_a_finished_state_gives_back_what_it_holds() -> None:
    states: list[dict[str, Any]] = []
    whole = train(after_epoch=states.append)
    assert_same_bits(train(state=states[-1]), whole)


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    assert_same_bits(train(), train())
    assert (train().w_in != train(seed=6).w_in).any()


def test_device_arrays_train_to_the_numbers_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = device_module()
    monkeypatch.setitem(sys.modules, "cupy", xp)
    for model in ("cbow", "skipgram"):
        states: list[dict[str, Any]] = []
        on_host, on_device = train(model=model), train(model=model, xp=xp, after_epoch=states.append)
        np.testing.assert_allclose(on_device.w_in, on_host.w_in, rtol=0, atol=1e-5)
        np.testing.assert_allclose(on_device.epoch_losses, on_host.epoch_losses, rtol=1e-6)
        assert_same_bits(train(model=model, xp=xp, state=states[0]), on_device)


def test_row_adam_trains_a_model_to_the_losses_of_dense_adam() -> None:
    losses = []
    for dense in (True, False):
        sampler = UnigramSampler(COUNTS, generator=np.random.default_rng(0))
        model = CBOW(VOCAB, 8, sampler, generator=np.random.default_rng(1), dtype=np.float64)
        optimizer = Adam(0.01) if dense else RowAdam(model.embeddings, 0.01)
        losses.append(Trainer(model, optimizer).fit(CONTEXTS, TARGET, epochs=5))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)


def test_an_epochs_loss_is_the_mean_over_its_examples() -> None:
    model = SimpleCBOW(VOCAB, 4, generator=np.random.default_rng(1), dtype=np.float64)
    expected = model.forward(CONTEXTS, TARGET)
    batch_size = 64
    assert len(TARGET) % batch_size, "the last batch must be short"
    found = Trainer(model, SGD(0.0)).fit(CONTEXTS, TARGET, epochs=1, batch_size=batch_size)
    np.testing.assert_allclose(found, [expected], rtol=1e-12)


def test_progress_counts_iterations_over_epochs_and_over_a_restart() -> None:
    seen: list[LossReport] = []
    states: list[dict[str, Any]] = []
    trained = train(every=10, on_progress=seen.append, after_epoch=states.append)
    per_epoch = -(-len(TARGET) // 20)
    assert [p.iteration for p in seen] == list(range(10, 3 * per_epoch + 1, 10))
    assert [p.epoch for p in seen] == [(p.iteration - 1) // per_epoch for p in seen]
    assert all(earlier.seconds <= later.seconds for earlier, later in pairwise(seen))
    assert min(trained.epoch_losses) - 0.5 < seen[-1].loss < max(trained.epoch_losses)
    resumed: list[LossReport] = []
    train(every=10, on_progress=resumed.append, state=states[1])
    assert [p.iteration for p in resumed] == [p.iteration for p in seen if p.iteration > 2 * per_epoch]


def test_a_report_after_a_restart_covers_the_examples_since_the_restart() -> None:
    states: list[dict[str, Any]] = []
    whole = train(after_epoch=states.append)
    resumed: list[LossReport] = []
    train(every=2 * -(-len(TARGET) // 20), epochs=2, on_progress=resumed.append, state=states[0])
    assert [(p.examples, p.loss) for p in resumed] == [(len(TARGET), whole.epoch_losses[1])]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_learning_rate_falls_in_a_line_to_the_final_one(optimizer: str) -> None:
    assert [epoch_rate(0.5, 0.1, epoch, 5) for epoch in range(5)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1])
    assert epoch_rate(0.5, None, 3, 5) == epoch_rate(0.5, 0.1, 0, 1) == 0.5
    states: list[dict[str, Any]] = []
    trained = train(optimizer=optimizer, final_learning_rate=0.0, epochs=2, after_epoch=states.append)
    np.testing.assert_array_equal(trained.w_in, states[0]["w_in"], "an epoch at rate 0 moves nothing")
    assert not np.isnan(trained.w_in).any()
    resumed = train(optimizer=optimizer, final_learning_rate=0.001, epochs=3, state=states[0])
    assert (resumed.w_in != states[0]["w_in"]).any()


@pytest.mark.turns(5, 7, of="large")
def test_the_benchmark_trains_to_the_losses_of_its_naive_dense_twin(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(" the cat <unk> on the mat \n a dog <unk> by the door \n" * 60)
    script = Path(__file__).parents[2] / "infra" / "benchmarks" / "book_curve.py"
    arguments = ["--corpus", str(tmp_path / "corpus.txt"), "--iterations", "3", "--blocks", "2", "--block", "10"]
    found = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=True, timeout=200)
    record = json.loads(found.stdout.splitlines()[-1])
    assert record["words"] == 10
    assert record["tokens"] == 60 * 14
    assert abs(record["curve"]["1"] - 6 * np.log(2)) < 1e-3
    assert record["losses_apart"] < 1e-5


def test_fit_twice_is_fit_once_for_longer() -> None:
    results = []
    for parts in ([4], [1, 3]):
        sampler = UnigramSampler(COUNTS, generator=np.random.default_rng(0))
        model = CBOW(VOCAB, 8, sampler, generator=np.random.default_rng(1))
        trainer = Trainer(model, RowAdam(model.embeddings))
        losses = [loss for epochs in parts for loss in trainer.fit(CONTEXTS, TARGET, epochs=epochs, eval_interval=5)]
        results.append((losses, [(r.epoch, r.iteration, r.loss) for r in trainer.records]))
    assert results[0] == results[1]


@pytest.mark.turns(3, 2)
def test_plot_writes_a_figure(tmp_path: Path) -> None:
    model = SimpleCBOW(VOCAB, 4, generator=np.random.default_rng(1))
    trainer = Trainer(model, SGD(1.0))
    trainer.fit(CONTEXTS, TARGET, epochs=2, eval_interval=3)
    trainer.plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_plot_without_records_is_refused() -> None:
    trainer = Trainer(SimpleCBOW(VOCAB, 4, generator=np.random.default_rng(1)), SGD(1.0))
    with pytest.raises(ValueError, match="plot: expected at least one record, found none; call fit with a smaller"):
        trainer.plot("never.png")


def test_generators_of_different_seeds_epochs_and_purposes_differ() -> None:
    drawn = {generator_for(seed, epoch, purpose).integers(2**62) for seed in (0, 1) for epoch in (0, 1) for purpose in Purpose}
    assert len(drawn) == 12


def test_importing_the_trainer_imports_neither_matplotlib_nor_a_compiler() -> None:
    code = (
        "import sys, w2v_core.textbook.trainer; print([m for m in ('matplotlib', 'numba', 'cupy', 'dask') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="model: expected one of cbow, skipgram, found 'glove'"):
        train(model="glove")
    with pytest.raises(ValueError, match="optimizer: expected sgd or adam, found 'adagrad'"):
        train(optimizer="adagrad")


@pytest.mark.parametrize(("contexts", "target"), [([[0, VOCAB]], [1]), ([[0, -2]], [1]), ([[0, 1]], [VOCAB]), ([[0, 1]], [-1])])
def test_word_ids_outside_the_vocabulary_are_named(contexts: Any, target: Any) -> None:
    bad = [(np.array([[0, 1]]), np.array([2])), (np.array(contexts), np.array(target))]
    with pytest.raises(ValueError, match=r"epoch 0, batch 1: expected word ids 0 … 11 .* found ids from -?\d+ to \d+"):
        train(batches=lambda epoch, generator: bad)


def test_an_epoch_without_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="epoch 0: expected at least one batch, found none; is the shard empty"):
        train(batches=lambda epoch, generator: [])


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            FloatingPointError, match=r"epoch \d, iteration \d+: expected a finite loss, found (nan|inf); lower the learning"
        ),
    ):
        train(optimizer="sgd", learning_rate=1e30)


def test_a_state_of_another_optimizer_or_size_is_refused() -> None:
    states: list[dict[str, Any]] = []
    train(epochs=1, after_epoch=states.append)
    with pytest.raises(ValueError, match=r"state: expected epoch_losses, .* saved with another optimizer"):
        train(optimizer="sgd", state=states[0])
    with pytest.raises(ValueError, match=r"state: expected w_in of shape \(12, 9\), found \(12, 8\)"):
        train(vector_size=9, state=states[0])


def test_fit_wants_a_target_for_each_row() -> None:
    trainer = Trainer(SimpleCBOW(VOCAB, 4, generator=np.random.default_rng(1)), SGD(1.0))
    with pytest.raises(ValueError, match="fit: expected a target for each contexts row, found 3 targets and 4 rows"):
        trainer.fit(CONTEXTS[:4], TARGET[:3])
    with pytest.raises(ValueError, match="eval_interval: expected a report every 1 or more iterations, found 0"):
        trainer.fit(CONTEXTS, TARGET, eval_interval=0)
    with pytest.raises(ValueError, match="every: expected a report every 1 or more iterations, found 0"):
        train(every=0)
