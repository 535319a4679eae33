"""As many threads as the machine lets run, never more than were allowed."""

from __future__ import annotations

from pipeline.training.busy_cores import PATIENCE, BusyCores


def test_on_a_machine_of_its_own_a_training_keeps_all_its_threads() -> None:
    cores = BusyCores(8)
    for _ in range(100):
        cores.ran(7.9)
        assert cores.threads == 8


def test_threads_that_wait_for_cores_are_given_up_at_once_and_tried_again_after_a_while() -> None:
    cores = BusyCores(8)
    cores.ran(4.2)
    assert cores.threads == 4
    for patience in (2 * PATIENCE, 4 * PATIENCE):
        for _ in range(patience):
            assert cores.threads == 4
            cores.ran(3.9)
        assert cores.threads == 5
        cores.ran(4.1)
    assert cores.threads == 4


def test_one_thread_is_left_however_busy_the_machine_is() -> None:
    cores = BusyCores(2)
    cores.ran(0.1)
    cores.ran(0.1)
    assert cores.threads == 1


def test_what_ran_is_measured_by_processor_time() -> None:
    cores = BusyCores(1)
    cores.begin()
    sum(range(100_000))
    cores.end(1)
    assert cores.threads == 1
