"""Wishes outlive the server that took them."""

import math
from dataclasses import replace

import pytest

from cluster.control.wishes import Wishes, forget_wishes
from cluster.policy.replicas.scaling import ScalingPolicy
from tests.memories import FakeMemory

POLICY = ScalingPolicy(False, 1, 4, 16, 0.7, 0.2, 30.0)


def wishes(memory: FakeMemory | None, replicas: int = 1, policy: ScalingPolicy = POLICY, wall: float = 0.0) -> Wishes:
    return Wishes(memory, replicas, policy, wall=lambda: wall)


def test_a_later_server_finds_counts_drains_and_policy() -> None:
    memory = FakeMemory()
    before = wishes(memory, wall=1000.0)
    assert before.replicas(3) == (None, {}) and before.policy() is None
    before.keep_replicas((1, 3, 1), {"node-a": 60.0, "node-b": math.inf, "node-c": 5.0})
    before.keep_policy(replace(POLICY, enabled=True))
    later = wishes(memory.of("2"), wall=1020.0)
    assert later.replicas(3) == ([1, 3, 1], {"node-a": 40.0, "node-b": math.inf})
    assert later.policy() == replace(POLICY, enabled=True)


def test_another_configuration_or_model_goes_first() -> None:
    memory = FakeMemory()
    wishes(memory).keep_replicas((1, 3, 1), {})
    wishes(memory).keep_policy(replace(POLICY, enabled=True))
    assert wishes(memory, replicas=2).replicas(3) == (None, {})
    assert wishes(memory).replicas(8) == (None, {})
    assert wishes(memory, policy=replace(POLICY, cooldown=5.0)).policy() is None


def test_they_end_with_the_actors() -> None:
    memory = FakeMemory()
    wishes(memory).keep_replicas((2,), {})
    forget_wishes(memory)
    assert wishes(memory).replicas(1) == (None, {})


def test_without_a_memory_nothing_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    wishes(None).keep_replicas((2,), {})
    assert wishes(None).replicas(1) == (None, {})
    away = FakeMemory(away=True)
    wishes(away).keep_policy(POLICY)
    assert "not kept for a later server: Ray is away" in caplog.text
    forget_wishes(away)
