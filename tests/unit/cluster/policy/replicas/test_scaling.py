"""How many replicas experts get, by how busy they are."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.policy.replicas.scaling import ScalingPolicy, Use, decide

ON = ScalingPolicy(True, 1, 6, 20, 0.7, 0.2, 30.0)


def on(**changes: float) -> ScalingPolicy:
    return dataclasses.replace(ON, **changes)  # type: ignore[arg-type]


def use(expert: int, count: int, utilization: float, **more: float) -> Use:
    return Use(expert, count, int(more.pop("ready", count)), utilization, **more)


def test_a_busy_expert_goes_up_to_the_middle_and_an_idle_one_down_by_one() -> None:
    assert decide(ON, [use(0, 1, 0.8), use(1, 1, 0.6), use(2, 3, 0.1), use(3, 3, 0.3)]) == {0: 2, 2: 2}
    assert decide(ON, [use(0, 4, 0.9)]) == {0: 6}, "3.6 of work at 45 % each would be 8"
    assert decide(ON, [use(0, 2, 1.0)]) == {0: 4}, "at most twice as many"


def test_nothing_is_done_unless_enabled() -> None:
    assert decide(on(enabled=False), [use(0, 1, 1.0), use(1, 9, 0.0)]) == {}


def test_who_was_changed_a_moment_ago_or_is_not_yet_so_large_is_left_alone() -> None:
    assert decide(ON, [use(0, 1, 1.0, since_change=29.0), use(1, 2, 1.0, ready=1)]) == {}
    assert decide(ON, [use(0, 1, 1.0, since_change=30.0)]) == {0: 2}


def test_bounds_are_met_whatever_the_load() -> None:
    policy = on(min_replica_count=2, max_replica_count=3, max_total_replica_count=8)
    assert decide(policy, [use(0, 1, 0.0, since_change=0.0), use(1, 5, 1.0, ready=4)]) == {0: 2, 1: 3}


def test_where_the_total_does_not_allow_all_the_busiest_get_more() -> None:
    policy = on(max_replica_count=4, max_total_replica_count=5)
    assert decide(policy, [use(0, 1, 0.75), use(1, 1, 0.99), use(2, 1, 0.75)]) == {0: 2, 1: 2}
    policy = on(max_replica_count=4, max_total_replica_count=4)
    assert decide(policy, [use(0, 3, 0.5), use(1, 3, 0.6)]) == {0: 2, 1: 2}, "a lower total takes from the idlest"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"min_replica_count": 0}, ["min_replica_count"]),
        ({"min_replica_count": 7}, ["max_replica_count", "max_total_replica_count"]),
        ({"max_total_replica_count": 7}, ["max_total_replica_count"]),
        ({"scale_up_utilization": 1.1}, ["scale_up_utilization"]),
        ({"scale_down_utilization": 0.7}, ["scale_down_utilization"]),
        ({"cooldown": math.nan}, ["cooldown"]),
    ],
)
def test_problems_are_named(changes: dict[str, float], fields: list[str]) -> None:
    assert [field for field, _ in on(**changes).problems(8)] == fields


def uses_of(work: list[float], counts: list[int]) -> list[Use]:
    """`work[e]` replicas' worth of computing, shared by however many there are."""
    return [use(e, counts[e], min(1.0, work[e] / counts[e])) for e in range(8)]


eight_works = st.lists(st.floats(0.0, 12.0), min_size=8, max_size=8)
eight_counts = st.lists(st.integers(1, 9), min_size=8, max_size=8)
policies = st.builds(
    lambda low, high, down, up, total: ScalingPolicy(True, low, low + high, 8 * low + total, down + up, down, 0.0),
    st.integers(1, 3),
    st.integers(0, 6),
    st.floats(0.0, 0.4),
    st.floats(0.05, 0.6),
    st.integers(0, 30),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(policies, eight_works, eight_counts)
def test_under_a_constant_load_it_comes_to_rest_within_its_budget(
    policy: ScalingPolicy, work: list[float], counts: list[int]
) -> None:
    assert not policy.problems(8)
    seen: list[list[int]] = []
    for _ in range(60):
        changes = decide(policy, uses_of(work, counts))
        counts = [changes.get(e, count) for e, count in enumerate(counts)]
        assert sum(counts) <= policy.max_total_replica_count
        assert all(policy.min_replica_count <= n <= policy.max_replica_count for n in counts)
        seen.append(counts)
        if not changes:
            return
    raise AssertionError(f"it goes on and on: {seen[-6:]}")
