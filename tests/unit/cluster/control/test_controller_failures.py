"""The controller's rounds when replicas cannot start, do not join or do not come back, and Ray or the head is away."""

import contextlib
from collections.abc import Collection

import pytest

from actors.replica import ReplicaId
from actors.vitals import Vitals
from cluster.policy.replicas.lifecycle import State
from tests.clusters import FakeCluster
from tests.unit.cluster.control.test_controller import Rig


def test_a_process_that_ended_is_taken_out_at_once_and_comes_back() -> None:
    rig = Rig(2)
    rig.cluster.kill((0, 1))
    rig.cluster.loading = {(0, 1)}
    assert rig.tick() and rig.routed == {(0, 0)}
    assert rig.states()[0, 1] is State.STARTING
    rig.cluster.loading.clear()
    assert not rig.tick() and rig.routed == {(0, 0), (0, 1)}
    (_, member) = rig.controller.snapshot().members
    assert member.restarts == 1 and member.incarnation == rig.cluster.processes[0, 1].incarnation


@pytest.mark.parametrize("error", ["OSError: gone", ""])
def test_a_replica_that_does_not_load_is_taken_back(error: str) -> None:
    rig = Rig(1)
    rig.cluster.loading = {(0, 1)}
    if error:
        rig.cluster.errors[0, 1] = error
    rig.controller.scale({0: 2})
    rig.tick(2 if error else 203, seconds=1.0)
    snapshot = rig.controller.snapshot()
    assert snapshot.desired == (1,) and rig.cluster.stopped == [(0, 1)]
    assert (error or "not loaded within 200 s") in snapshot.notes[0]


def test_a_sole_copy_that_cannot_load_is_tried_again_and_again_but_ever_less_often() -> None:
    rig = Rig(1)
    rig.cluster.kill((0, 0))
    rig.cluster.errors[0, 0] = "OSError: gone"
    rig.tick(800)
    assert len(rig.cluster.started) == 4, "after 5, 10, 20 and 40 s"
    assert "OSError: gone" in rig.controller.snapshot().notes[0]
    rig.cluster.errors.clear()
    rig.tick(610)
    assert rig.states() == {(0, 0): State.READY} and rig.routed == {(0, 0)}
    assert rig.controller.snapshot().notes == {}
    rig.cluster.kill((0, 0))
    rig.cluster.errors[0, 0] = "OSError: gone"
    rig.tick(60)
    assert len(rig.cluster.started) == 6, "it has served, so the pauses begin anew"


def test_a_process_that_crashes_while_it_loads_is_given_up_with_the_scaling() -> None:
    rig = Rig(1)
    rig.cluster.crashing = {(0, 1)}
    rig.controller.scale({0: 2})
    assert not rig.tick(10)
    snapshot = rig.controller.snapshot()
    assert snapshot.desired == (1,) and rig.cluster.stopped == [(0, 1)] and len(rig.cluster.started) == 1
    assert "it failed 3 times before it was ready: its process ended" in snapshot.notes[0]


def test_a_process_that_cannot_be_made_is_given_up_with_ray_s_reason() -> None:
    rig = Rig(1)
    rig.cluster.broken = {(0, 1): "ValueError: the checkpoint has changed"}
    rig.controller.scale({0: 2})
    assert not rig.tick(10)
    snapshot = rig.controller.snapshot()
    assert snapshot.desired == (1,) and len(rig.cluster.started) == 3
    assert snapshot.notes[0].endswith("failed 3 times before it was ready: ValueError: the checkpoint has changed")


def test_a_replica_that_answers_no_warm_up_call_is_given_up_and_holds_nobody_up_meanwhile() -> None:
    rig = Rig(1, 1)
    rig.cluster.cold = {(0, 1)}
    rig.controller.scale({0: 2})
    rig.tick(3)
    told = len(rig.cluster.published)
    rig.controller.scale({1: 2})
    rig.tick(2)
    assert rig.states()[1, 1] is State.READY and len(rig.cluster.published) == told + 1
    assert not rig.tick(200)
    snapshot = rig.controller.snapshot()
    assert snapshot.desired == (1, 2) and rig.cluster.stopped == [(0, 1)]
    assert "it failed 3 times before it was ready: it did not answer a warm-up call" in snapshot.notes[0]


def test_one_whose_process_does_not_come_back_is_replaced_but_one_that_is_silent_is_not() -> None:
    rig = Rig(1, 1)
    rig.cluster.kill((0, 0))
    rig.cluster.kill((1, 0))
    rig.cluster.away[0, 0] = "it restarts"
    del rig.cluster.processes[1, 0]
    rig.tick(202, seconds=1.0)
    assert rig.cluster.stopped == [(0, 0)] and rig.routed == {(1, 0)}
    assert rig.controller.snapshot().notes[0].endswith("it did not come back within 200 s: it restarts")
    rig.cluster.away.clear()
    assert rig.tick(10, seconds=1.0), "the silent one is waited for still"
    assert rig.states() == {(0, 0): State.READY, (1, 0): State.UNREACHABLE}


def test_a_process_that_never_starts_is_told_from_one_without_a_node() -> None:
    rig = Rig(1)
    rig.cluster.away[0, 1] = "its worker crashed"
    rig.controller.scale({0: 2})
    rig.tick(63, seconds=1.0)
    assert rig.controller.snapshot().notes[0].endswith("did not start within 60 s: its worker crashed")


def test_what_ray_fails_to_end_is_ended_later() -> None:
    rig, good = Rig(2), FakeCluster.stop

    def bad(cluster: FakeCluster, key: tuple[int, int]) -> None:
        rig.cluster.stop = good.__get__(rig.cluster)  # type: ignore[method-assign]
        raise RuntimeError("Ray is away")

    rig.cluster.stop = bad.__get__(rig.cluster)  # type: ignore[method-assign]
    rig.controller.scale({0: 1})
    with pytest.raises(RuntimeError):
        rig.tick(10)
    assert not rig.tick(10) and rig.cluster.stopped == [(0, 1)] and rig.states() == {(0, 0): State.READY}


def test_a_stop_that_fails_does_not_keep_the_head_from_being_told() -> None:
    """A retired replica cannot be ended, and another's process ends meanwhile: the head hears of that in each round."""
    rig = Rig(2, 1)
    rig.controller.scale({0: 1})
    rig.tick(1)

    def away(key: object) -> None:
        raise RuntimeError("Ray is away")

    rig.cluster.stop = away  # type: ignore[method-assign]
    for _ in range(6):
        with contextlib.suppress(RuntimeError):
            rig.tick(1)
    assert rig.cluster.stopped == []
    rig.cluster.kill((1, 0))
    with pytest.raises(RuntimeError):
        rig.tick(1)
    with contextlib.suppress(RuntimeError):
        rig.tick(2)
    assert set(rig.cluster.published[-1]) == {(0, 0), (1, 0)}
    assert rig.cluster.published[-1][ReplicaId(1, 0)] == rig.cluster.processes[1, 0].incarnation


def test_the_end_of_a_process_is_not_forgotten_when_ray_fails_to_ask() -> None:
    rig, good = Rig(2), FakeCluster.ask

    def bad(cluster: FakeCluster, keys: Collection[tuple[int, int]]) -> Vitals:
        rig.cluster.ask = good.__get__(rig.cluster)  # type: ignore[method-assign]
        raise RuntimeError("Ray is away")

    rig.cluster.kill((0, 1))
    rig.cluster.loading = {(0, 1)}
    rig.cluster.ask = bad.__get__(rig.cluster)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        rig.tick()
    assert rig.tick() and rig.routed == {(0, 0)} and rig.states()[0, 1] is State.STARTING


def test_what_ray_fails_to_start_is_started_later() -> None:
    rig, good = Rig(1), FakeCluster.start

    def bad(cluster: FakeCluster, key: tuple[int, int], node_id: str, avoided: Collection[str]) -> None:
        rig.cluster.start = good.__get__(rig.cluster)  # type: ignore[method-assign]
        raise RuntimeError("Ray is away")

    rig.cluster.start = bad.__get__(rig.cluster)  # type: ignore[method-assign]
    rig.controller.scale({0: 2})
    with pytest.raises(RuntimeError):
        rig.tick()
    assert rig.states() == {(0, 0): State.READY}
    assert not rig.tick(3) and rig.cluster.started == [((0, 1), "n0")] and rig.routed == {(0, 0), (0, 1)}


def test_one_that_drains_is_not_ended_while_the_head_may_still_route_to_it() -> None:
    rig = Rig(2)
    rig.cluster.head_answers = False
    rig.controller.scale({0: 1})
    rig.tick(20)
    assert rig.cluster.stopped == []
    rig.cluster.head_answers = True
    assert not rig.tick(2) and rig.cluster.stopped == [(0, 1)]


def test_an_operator_who_asks_again_is_not_kept_waiting() -> None:
    rig = Rig(1)
    rig.cluster.errors[0, 1] = "OSError: gone"
    rig.controller.scale({0: 2})
    rig.tick(3)
    assert rig.controller.snapshot().desired == (1,)
    rig.cluster.errors.clear()
    rig.controller.scale({0: 2})
    assert not rig.tick(2) and rig.routed == {(0, 0), (0, 1)}


def test_a_head_that_does_not_answer_is_told_later() -> None:
    rig = Rig(1)
    rig.cluster.head_answers = False
    rig.controller.scale({0: 2})
    assert rig.tick(5) and rig.states()[0, 1] is State.STARTING
    rig.cluster.head_answers = True
    assert not rig.tick(1) and rig.routed == {(0, 0), (0, 1)}


def test_a_head_that_did_not_hear_of_one_that_went_is_told_again() -> None:
    rig = Rig(2)
    rig.cluster.head_answers = False
    rig.controller.scale({0: 1})
    rig.tick(5)
    assert rig.routed == {(0, 0), (0, 1)}
    rig.cluster.head_answers = True
    rig.tick()
    assert rig.routed == {(0, 0)}


def test_what_goes_wrong_in_a_round_is_logged_and_the_next_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(1)
    good = rig.cluster.ended

    def bad() -> frozenset[ReplicaId]:
        rig.cluster.ended = good  # type: ignore[method-assign]
        raise RuntimeError("Ray is away")

    rig.cluster.ended = bad  # type: ignore[method-assign]
    rig.controller.scale({0: 2})
    rig.controller.start()
    assert rig.cluster.wait(lambda: rig.routed == {(0, 0), (0, 1)})
    rig.controller.stop()
    assert "Ray is away" in caplog.text
    assert rig.states()[0, 1] is State.READY
