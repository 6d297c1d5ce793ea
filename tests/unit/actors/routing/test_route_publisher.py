"""What a head is told, and what a restarted one is given."""

from actors.replica import Replica
from actors.routing.route_publisher import RoutePublisher
from actors.routing.route_table import RouteUpdate

A, B, C = Replica(0, 0, "a"), Replica(1, 0, "b"), Replica(1, 1, "c")


def published(*replicas: Replica) -> RoutePublisher:
    publisher = RoutePublisher()
    publisher.for_epoch(4)
    publisher.joined(publisher.next(replicas), cold=())
    return publisher


def test_each_update_has_a_higher_revision_and_the_epoch_of_its_engine() -> None:
    publisher = published(A, B)
    first = publisher.next([A])
    publisher.joined(first, cold=())
    second = publisher.next([A, B])
    assert first.order < second.order and (first.epoch, second.epoch) == (4, 4)


def test_a_head_that_is_begun_gets_what_was_routed_to_last_with_its_own_epoch() -> None:
    assert published(A, B).for_epoch(7) == RouteUpdate(1, [A, B], 7)


def test_cold_replicas_are_not_given_to_a_restarted_head() -> None:
    publisher = published(A)
    publisher.joined(publisher.next([A, B, C]), cold=[C.id])
    assert publisher.for_epoch(5).replicas == [A, B]


def test_a_head_that_did_not_answer_gets_what_it_had_and_is_still_wanted() -> None:
    """B is not wanted any more, C has not been warmed up."""
    publisher = published(A, B)
    publisher.unanswered(publisher.next([A, C]))
    assert publisher.for_epoch(5).replicas == [A]
    assert publisher.next([A, C]).revision > publisher.update.revision


def test_a_replica_that_restarted_is_not_the_one_that_the_head_had() -> None:
    publisher = published(A, B)
    publisher.unanswered(publisher.next([A, Replica(1, 0, "restarted")]))
    assert publisher.for_epoch(5).replicas == [A]
