"""How replicas join and leave the head's table, over a transport whose replicas answer as a test says; its updates."""

from collections.abc import Collection, Sequence

import pytest
import torch

from actors.replica import Replica, ReplicaId, Table, one_each
from actors.routing.replicas import Replicas
from actors.routing.route_table import WARM_SECONDS, RoutePublisher, RouteTable, RouteUpdate
from actors.transport.local import LocalTransport
from actors.transport.seam import ExpertCall, ExpertReply
from tests.unit.actors.routing.test_router import Clock, Scaling

ROWS = torch.zeros(4, 6)
EXPERTS = 3


class Warming:
    """A transport whose replicas answer, fail or stay silent by their incarnation; notes the table of each call."""

    def __init__(self, replicas: Replicas, clock: Clock) -> None:
        self.replicas, self.clock = replicas, clock
        self.called: list[Replica] = []
        self.tables: list[Table] = []
        self._replies: list[ExpertReply] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        self.tables.append(self.replicas.table)
        for call in calls:
            assert torch.equal(call.rows_RD, ROWS) and call.layer == 0
            self.called.append(call.replica)
            if call.replica.incarnation == "failing":
                self._replies.append(ExpertReply(call.call_id, None, error="its weights are gone"))
            elif call.replica.incarnation != "silent":
                self._replies.append(ExpertReply(call.call_id, call.rows_RD))

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        if not self._replies:
            self.clock.now += timeout
        replies, self._replies = self._replies, []
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        pass


class Rig:
    def __init__(self) -> None:
        self.replicas, self.clock = Replicas(()), Clock()
        self.transport = Warming(self.replicas, self.clock)
        self.routes = RouteTable(self.replicas, lambda: self.transport, EXPERTS, self.clock)

    def update(self, revision: int, *replicas: Replica, epoch: int = 1) -> list[ReplicaId] | None:
        return self.routes.update(RouteUpdate(revision, replicas, epoch), ROWS)

    @property
    def table(self) -> Table:
        return self.replicas.table


OLD = [Replica(expert, 0, "a") for expert in range(EXPERTS)]


def begun() -> Rig:
    rig = Rig()
    rig.routes.adopt(RouteUpdate(1, OLD, 1))
    return rig


def test_adopted_replicas_are_routed_to_at_once_in_order() -> None:
    rig = Rig()
    rig.routes.adopt(RouteUpdate(1, [Replica(2, 1, "b"), *reversed(OLD)], 1))
    assert rig.table == ((OLD[0],), (OLD[1],), (OLD[2], Replica(2, 1, "b"))) and rig.transport.called == []


def test_only_a_new_replica_is_warmed_up_and_joins_after_its_answer() -> None:
    rig, new = begun(), Replica(1, 1, "b")
    assert rig.update(2, *OLD, new) == []
    assert rig.transport.called == [new]
    assert rig.transport.tables == [((OLD[0],), (OLD[1],), (OLD[2],))], "during the warm-up it is not routed to"
    assert rig.table == ((OLD[0],), (OLD[1], new), (OLD[2],))


def test_a_restarted_replica_is_a_new_one() -> None:
    rig, again = begun(), Replica(1, 0, "restarted")
    assert rig.update(2, OLD[0], again, OLD[2]) == []
    assert rig.transport.called == [again]
    assert rig.transport.tables == [((OLD[0],), (), (OLD[2],))], "its process is gone, so its calls would fail"


def test_a_replica_that_leaves_is_left_before_others_are_waited_for() -> None:
    rig, new = begun(), Replica(1, 1, "silent")
    rig.update(2, OLD[0], OLD[2], new)
    assert rig.transport.tables == [((OLD[0],), (), (OLD[2],))]


@pytest.mark.parametrize("how", ["failing", "silent"])
def test_a_replica_whose_warm_up_fails_is_left_out_and_named(how: str, caplog: pytest.LogCaptureFixture) -> None:
    rig, new = begun(), Replica(1, 1, how)
    before = rig.clock.now
    assert rig.update(2, *OLD, new, Replica(2, 1, "b")) == [(1, 1)]
    assert rig.table == ((OLD[0],), (OLD[1],), (OLD[2], Replica(2, 1, "b")))
    assert rig.clock.now - before == (WARM_SECONDS if how == "silent" else 0)
    assert ("its weights are gone" in caplog.text) == (how == "failing")


def test_of_two_updates_the_one_with_the_higher_revision_counts() -> None:
    rig = begun()
    rig.update(3, *OLD, Replica(1, 1, "b"))
    assert rig.update(2, *OLD) is None, "it was not carried out"
    assert rig.table[1] == (OLD[1], Replica(1, 1, "b"))


def test_of_two_engines_the_one_with_the_higher_epoch_counts() -> None:
    rig = begun()
    rig.routes.adopt(RouteUpdate(0, OLD[:2], epoch=2))
    rig.update(9, *OLD, epoch=1)
    assert rig.table == ((OLD[0],), (OLD[1],), ())


def test_endpoints_are_made_by_the_transport() -> None:
    class Bound(LocalTransport):
        def connect(self, replica: Replica) -> Replica:
            return Replica(replica.expert, replica.index, replica.incarnation, Scaling(replica.expert))

    replicas = Replicas(one_each([None] * EXPERTS))
    routes = RouteTable(replicas, Bound, EXPERTS)
    assert routes.update(RouteUpdate(1, [Replica(2, 1, "b")], 1), ROWS) == []
    assert isinstance(replicas.table[2][0].endpoint, Scaling)


# ---- what the head is told, and what a restarted one is given ----

A, B, C = Replica(0, 0, "a"), Replica(1, 0, "b"), Replica(1, 1, "c")


def published(*replicas: Replica) -> RoutePublisher:
    publisher = RoutePublisher()
    publisher.for_epoch(4)
    publisher.told(publisher.next(replicas), cold=())
    return publisher


def test_each_update_has_a_higher_revision_and_the_epoch_of_its_engine() -> None:
    publisher = published(A, B)
    first = publisher.next([A])
    publisher.told(first, cold=())
    second = publisher.next([A, B])
    assert first.order < second.order and (first.epoch, second.epoch) == (4, 4)


def test_a_head_that_is_begun_gets_what_was_routed_to_last_with_its_own_epoch() -> None:
    assert published(A, B).for_epoch(7) == RouteUpdate(1, [A, B], 7)


def test_cold_replicas_are_not_given_to_a_restarted_head() -> None:
    publisher = published(A)
    publisher.told(publisher.next([A, B, C]), cold=[C.id])
    assert publisher.for_epoch(5).replicas == [A, B]


def test_a_head_that_did_not_answer_gets_what_it_had_and_is_still_wanted() -> None:
    """B is not wanted any more, C has not been warmed up."""
    publisher = published(A, B)
    publisher.told(publisher.next([A, C]), cold=None)
    assert publisher.for_epoch(5).replicas == [A]
    assert publisher.next([A, C]).revision > publisher.update.revision


def test_a_replica_that_restarted_is_not_the_one_that_the_head_had() -> None:
    publisher = published(A, B)
    publisher.told(publisher.next([A, Replica(1, 0, "restarted")]), cold=None)
    assert publisher.for_epoch(5).replicas == [A]
