"""Looks at a cluster that computes nothing, on a clock that only tests move."""

import logging

import pytest

from cluster.control.autoscaler import Autoscaler
from cluster.observe.view import Snapshot
from cluster.policy.replicas.scaling import ScalingPolicy
from tests.unit.cluster.control.test_controller import Rig

POLICY = ScalingPolicy(True, 1, 3, 6, 0.7, 0.2, cooldown=10.0)


def looking(rig: Rig, policy: ScalingPolicy = POLICY) -> Autoscaler:
    return Autoscaler(rig.controller, policy, lambda: rig.now)


def work(rig: Rig, seconds: float, *busy: float) -> None:
    """Time passes in which expert e computes for `busy[e]` seconds, its replicas alike."""
    rig.now += seconds
    for expert, spent in enumerate(busy):
        mine = [m.id for m in rig.controller.snapshot().members if m.id.expert == expert]
        for key in mine:
            rig.cluster.busy_seconds[key] = rig.cluster.busy_seconds.get(key, 0.0) + spent / len(mine)


def test_a_hot_expert_is_scaled_up_and_down_again() -> None:
    rig = Rig(1, 1)
    autoscaler = looking(rig)
    assert autoscaler.look() == {}, "nothing to compare with yet"
    work(rig, 5.0, 4.5, 0.5)
    assert autoscaler.look() == {0: 2}
    rig.tick(3)
    for _ in range(2):
        work(rig, 5.0, 4.5, 0.5)
        assert autoscaler.look() == {}, "two share it now"
    work(rig, 5.0, 0.1, 0.5)
    assert autoscaler.look() == {0: 1}
    rig.tick(8)
    assert [m.id for m in rig.controller.snapshot().members] == [(0, 0), (1, 0)]


def test_a_change_is_followed_by_its_cooldown() -> None:
    rig = Rig(1, 1)
    autoscaler = looking(rig)
    autoscaler.look()
    work(rig, 5.0, 5.0, 0.0)
    assert autoscaler.look() == {0: 2}
    rig.tick(3)
    work(rig, 5.0, 10.0, 0.0)
    assert autoscaler.look() == {}
    work(rig, 5.0, 10.0, 0.0)
    assert autoscaler.look() == {0: 3}


def test_what_an_operator_changes_has_its_cooldown_too() -> None:
    rig = Rig(1)
    autoscaler = looking(rig)
    autoscaler.look()
    rig.controller.scale({0: 2})
    rig.tick(3)
    work(rig, 5.0, 0.1)
    assert autoscaler.look() == {}, "although it is idle"
    work(rig, 5.0, 0.1)
    assert autoscaler.look() == {}
    work(rig, 5.0, 0.1)
    assert autoscaler.look() == {0: 1}


def test_who_is_quicker_than_the_autoscaler_is_not_overridden() -> None:
    rig = Rig(1)
    autoscaler = looking(rig)
    autoscaler.look()
    work(rig, 5.0, 5.0)
    good = rig.controller.snapshot

    def snapshot() -> Snapshot:
        before = good()
        rig.controller.scale({0: 3})
        return before

    rig.controller.snapshot = snapshot  # type: ignore[method-assign]
    assert autoscaler.look() == {}
    assert good().desired == (3,)


def test_a_start_that_fails_is_not_repeated_at_once_and_its_reason_stays() -> None:
    rig = Rig(1)
    rig.cluster.errors[0, 1] = "OSError: gone"
    autoscaler = looking(rig, ScalingPolicy(True, 2, 3, 6, 0.7, 0.2, cooldown=0.0))
    autoscaler.look()
    for _ in range(12):
        work(rig, 5.0, 2.0)
        autoscaler.look()
        rig.tick(3)
        assert len(rig.cluster.started) < 2 or "OSError: gone" in rig.controller.snapshot().notes[0]
    assert 3 <= len(rig.cluster.started) <= 4, "after 5, 10, 20 s"


def test_nothing_is_decided_without_the_head_or_after_it_was_away() -> None:
    rig = Rig(1)
    autoscaler = looking(rig)
    autoscaler.look()
    work(rig, 5.0, 5.0)
    rig.cluster.head_answers = False
    assert autoscaler.look() == {}
    rig.cluster.head_answers = True
    assert autoscaler.look() == {}
    work(rig, 5.0, 5.0)
    assert autoscaler.look() == {0: 2}


def test_its_thread_sleeps_unless_enabled_and_outlives_what_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(1)
    autoscaler = Autoscaler(rig.controller, ScalingPolicy(False, 1, 3, 6, 0.7, 0.2, 0.0), interval=0.01)
    rig.cluster.busy_seconds[0, 0] = 0.0
    autoscaler.start()
    with caplog.at_level(logging.ERROR):
        autoscaler.set(ScalingPolicy(True, 2, 3, 6, 0.7, 0.2, 0.0))
        rig.controller.start()
        assert rig.cluster.wait(lambda: rig.routed == {(0, 0), (0, 1)}), "the minimum is met"
    autoscaler.stop()
    rig.controller.stop()
