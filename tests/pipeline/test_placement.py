"""Which worker trains which lanes, and which one speaks for a host: every lane once, whole hosts, one agent per block."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.workers import Member
from pipeline.errors import TemporaryError
from pipeline.training.placement import (
    MergeRole,
    Place,
    block_of,
    choose_workers,
    join_host,
    merge_role,
    participants_by_host,
    place_copies,
)


def members_of(sizes: dict[str, int]) -> list[Member]:
    return [Member(f"tcp://{host}:{index}", host, 1) for host, size in sizes.items() for index in range(size)]


clusters = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5), min_size=1).map(members_of)
lane_counts = st.integers(1, 40)


@settings(derandomize=True, max_examples=200)
@given(clusters, lane_counts)
def test_every_lane_has_one_place_and_every_host_a_contiguous_run_of_lanes(members: list[Member], lanes: int) -> None:
    chosen = choose_workers(members, lanes)
    assert len(chosen) == min(len(members), lanes)
    places = place_copies(chosen, lanes)
    assert [lane for place in places for lane in place.copies] == list(range(lanes))
    assert all(len(place.copies) for place in places)
    assert [place.address for place in places] == [member.address for member in chosen]
    assert len(participants_by_host(places)) == len({place.host for place in places})


def test_training_takes_as_few_hosts_as_its_copies_need() -> None:
    members = members_of({"a": 1, "b": 3, "c": 2})
    assert [member.host for member in choose_workers(members, 3)] == ["b"] * 3
    assert [member.host for member in choose_workers(members, 5)] == ["b"] * 3 + ["c"] * 2
    assert [member.host for member in choose_workers(members, 9)] == ["a", "b", "b", "b", "c", "c"]
    assert choose_workers(list(reversed(members)), 4) == choose_workers(members, 4)


def test_workers_without_a_copy_leave_their_threads_to_those_of_their_host() -> None:
    members = members_of({"a": 5, "b": 3})
    assert [(member.address, member.threads) for member in choose_workers(members, 1)] == [("tcp://a:0", 5)]
    assert [(member.host, member.threads) for member in choose_workers(members, 2)] == [("a", 2), ("a", 3)]
    assert [(member.host, member.threads) for member in choose_workers(members, 6)] == [("a", 1)] * 5 + [("b", 3)]
    assert [member.threads for member in choose_workers(members, 9)] == [1] * 8


def test_workers_of_one_host_can_give_all_their_threads_to_one_and_those_of_several_hosts_stay() -> None:
    chosen = choose_workers(members_of({"a": 5}), 2)
    assert [(member.address, member.threads) for member in join_host(chosen)] == [("tcp://a:0", 5)]
    apart = choose_workers(members_of({"a": 2, "b": 1}), 3)
    assert join_host(apart) == apart


def test_no_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TemporaryError, match="no worker is left; start workers"):
        choose_workers([], 4)


def test_places_of_a_host_that_are_not_neighbours_are_refused() -> None:
    places = [Place(address=host, host=host, threads=1, first_copy=lane, last_copy=lane + 1) for lane, host in enumerate("aba")]
    with pytest.raises(ValueError, match="found a host in two runs"):
        participants_by_host(places)


@settings(derandomize=True, max_examples=200)
@given(clusters, lane_counts)
def test_every_block_has_one_agent_on_every_other_host_that_knows_of_it(members: list[Member], lanes: int) -> None:
    places = place_copies(choose_workers(members, lanes), lanes)
    roles = [merge_role(places, participant) for participant in range(len(places))]
    for owner, owned in enumerate(roles):
        spoken_for = sorted(lane for lanes_there in [owned.copies, *(there for _, there in owned.agents)] for lane in lanes_there)
        assert spoken_for == list(range(lanes))
        assert {agent for agent, _ in owned.agents} == {agent for agent, served in enumerate(roles) if owner in served.owners}
        for agent, there in owned.agents:
            assert roles[agent].copies == there


def test_two_hosts_of_equal_size_need_one_connection_a_participant() -> None:
    places = place_copies(members_of({"a": 3, "b": 3}), 6)
    assert merge_role(places, 1) == MergeRole(host=range(3), copies=range(3), agents=((4, range(3, 6)),), owners=(4,))
    assert merge_role(places, 5) == MergeRole(host=range(3, 6), copies=range(3, 6), agents=((2, range(3)),), owners=(2,))


@settings(derandomize=True, max_examples=100)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_blocks_cover_the_rows_once_and_differ_by_one_at_most(rows: int, participants: int) -> None:
    blocks = [block_of(rows, participant, participants) for participant in range(participants)]
    assert [row for first, last in blocks for row in range(first, last)] == list(range(rows))
    sizes = [last - first for first, last in blocks]
    assert max(sizes) - min(sizes) <= 1
