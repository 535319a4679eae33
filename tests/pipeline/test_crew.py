"""Who trains which lanes, and who speaks for a host: every lane once, hosts whole, and every block between two workers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cluster.workers import Member
from pipeline.errors import TemporaryError
from pipeline.training.placement import Errands, Place, block_of, choose_crew, errands_of, participants_by_host, seat


def members_of(sizes: dict[str, int]) -> list[Member]:
    return [Member(f"tcp://{host}:{index}", host, 1) for host, size in sizes.items() for index in range(size)]


clusters = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5), min_size=1).map(members_of)
lane_counts = st.integers(1, 40)


@settings(derandomize=True, max_examples=200)
@given(clusters, lane_counts)
def test_every_lane_has_one_place_and_every_host_a_contiguous_run_of_lanes(members: list[Member], lanes: int) -> None:
    crew = choose_crew(members, lanes)
    assert len(crew) == min(len(members), lanes)
    places = seat(crew, lanes)
    assert [lane for place in places for lane in place.copies] == list(range(lanes))
    assert all(len(place.copies) for place in places)
    assert [place.address for place in places] == [member.address for member in crew]
    assert len(participants_by_host(places)) == len({place.host for place in places})


def test_a_crew_takes_as_few_hosts_as_its_lanes_need() -> None:
    members = members_of({"a": 1, "b": 3, "c": 2})
    assert [member.host for member in choose_crew(members, 3)] == ["b"] * 3
    assert [member.host for member in choose_crew(members, 5)] == ["b"] * 3 + ["c"] * 2
    assert [member.host for member in choose_crew(members, 9)] == ["a", "b", "b", "b", "c", "c"]
    assert choose_crew(list(reversed(members)), 4) == choose_crew(members, 4)


def test_workers_without_a_copy_leave_their_threads_to_those_of_their_host() -> None:
    members = members_of({"a": 5, "b": 3})
    assert [(member.address, member.threads) for member in choose_crew(members, 1)] == [("tcp://a:0", 5)]
    assert [(member.host, member.threads) for member in choose_crew(members, 2)] == [("a", 2), ("a", 3)]
    assert [(member.host, member.threads) for member in choose_crew(members, 6)] == [("a", 1)] * 5 + [("b", 3)]
    assert [member.threads for member in choose_crew(members, 9)] == [1] * 8


def test_no_worker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TemporaryError, match="no worker is left; start workers"):
        choose_crew([], 4)


def test_places_of_a_host_that_are_not_neighbours_are_refused() -> None:
    places = [Place(address=host, host=host, threads=1, first_copy=lane, last_copy=lane + 1) for lane, host in enumerate("aba")]
    with pytest.raises(ValueError, match="found a host in two runs"):
        participants_by_host(places)


@settings(derandomize=True, max_examples=200)
@given(clusters, lane_counts)
def test_every_block_has_one_agent_on_every_other_host_who_knows_of_it(members: list[Member], lanes: int) -> None:
    places = seat(choose_crew(members, lanes), lanes)
    errands = [errands_of(places, participant) for participant in range(len(places))]
    for owner, owned in enumerate(errands):
        spoken_for = sorted(lane for lanes_there in [owned.copies, *(there for _, there in owned.agents)] for lane in lanes_there)
        assert spoken_for == list(range(lanes))
        assert {agent for agent, _ in owned.agents} == {agent for agent, served in enumerate(errands) if owner in served.owners}
        for agent, there in owned.agents:
            assert errands[agent].copies == there


def test_two_hosts_of_equal_size_need_one_connection_a_participant() -> None:
    places = seat(members_of({"a": 3, "b": 3}), 6)
    assert errands_of(places, 1) == Errands(host=range(3), copies=range(3), agents=((4, range(3, 6)),), owners=(4,))
    assert errands_of(places, 5) == Errands(host=range(3, 6), copies=range(3, 6), agents=((2, range(3)),), owners=(2,))


@settings(derandomize=True, max_examples=100)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_blocks_cover_the_rows_once_and_differ_by_one_at_most(rows: int, participants: int) -> None:
    blocks = [block_of(rows, participant, participants) for participant in range(participants)]
    assert [row for first, last in blocks for row in range(first, last)] == list(range(rows))
    sizes = [last - first for first, last in blocks]
    assert max(sizes) - min(sizes) <= 1
