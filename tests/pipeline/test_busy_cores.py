"""As many threads as the machine lets run, never more than were allowed."""

from __future__ import annotations

import time

from pipeline.training.busy_cores import FEWEST_TOKENS, JUDGED_S, MOST_TOKENS, PATIENCE, SOME_TOKENS, BusyCores

LONG_S = 2 * JUDGED_S


def test_on_a_machine_of_its_own_a_training_keeps_all_its_threads_in_ever_longer_calls() -> None:
    cores, tokens = BusyCores(8), []
    for _ in range(100):
        cores.ran(LONG_S, 7.9 * LONG_S)
        assert cores.threads == 8
        tokens.append(cores.tokens)
    assert tokens[0] == 2 * FEWEST_TOKENS
    assert tokens == sorted(tokens)
    assert tokens[-1] == MOST_TOKENS


def test_threads_that_wait_for_cores_are_given_up_at_once_and_tried_again_after_a_while() -> None:
    cores = BusyCores(8)
    cores.ran(LONG_S, 4.2 * LONG_S)
    assert cores.threads == 4
    for patience in (2 * PATIENCE, 4 * PATIENCE):
        for _ in range(patience):
            assert cores.threads == 4
            cores.ran(LONG_S, 3.9 * LONG_S)
        assert cores.threads == 5
        cores.ran(LONG_S, 4.1 * LONG_S)
    assert cores.threads == 4


def test_with_another_number_of_threads_calls_are_short_again_and_do_not_grow_as_long_until_all_are_back() -> None:
    cores = BusyCores(4)
    for _ in range(20):
        cores.ran(LONG_S, 4 * LONG_S)
    assert cores.tokens == MOST_TOKENS
    cores.ran(LONG_S, 2.9 * LONG_S)
    assert (cores.threads, cores.tokens) == (3, FEWEST_TOKENS)
    for _ in range(2 * PATIENCE - 1):
        cores.ran(LONG_S, 3 * LONG_S)
    assert (cores.threads, cores.tokens) == (3, SOME_TOKENS)
    cores.ran(LONG_S, 3 * LONG_S)
    assert (cores.threads, cores.tokens) == (4, FEWEST_TOKENS)


def test_a_core_that_is_missing_for_a_moment_changes_nothing() -> None:
    cores = BusyCores(2)
    for _ in range(100):
        for cpu_s in (1.1, 2.0, 2.0, 2.0):
            cores.ran(JUDGED_S / 4, cpu_s * JUDGED_S / 4)
            assert cores.threads == 2


def test_each_copy_keeps_a_thread_however_busy_the_machine_is() -> None:
    cores = BusyCores(2)
    for _ in range(3):
        cores.ran(LONG_S, 0.1 * LONG_S)
    assert cores.threads == 1


def test_what_ran_is_measured_by_processor_time_and_what_was_spared_counts() -> None:
    cores = BusyCores(3)
    cores.begin()
    time.sleep(LONG_S)
    cores.end(1, spared=3)
    assert cores.threads == 3
    cores.begin()
    time.sleep(LONG_S)
    cores.end(1)
    assert cores.threads == 1
