"""The event log: numbered, bounded, read from any number on."""

import threading

import pytest

from cluster.observe.events import Event, EventLog, Kind
from protos.eightwinds.v1 import cluster_pb2 as pb


def numbers(log: EventLog, after: int) -> list[int]:
    return [event.sequence for event in log.after(after)]


def filled(count: int, most: int = 10) -> EventLog:
    log = EventLog(most, clock=lambda: 5.0)
    for i in range(count):
        log.add(Event(Kind.REPLICA_DIED, f"cause {i}", expert=i, replica=0, node_id="n0", requester="ops"))
    return log


def test_an_event_holds_what_was_given_and_when() -> None:
    (event,) = filled(1).after(0)
    assert (event.sequence, event.at, event.kind, event.cause) == (1, 5.0, Kind.REPLICA_DIED, "cause 0")
    assert (event.expert, event.replica, event.node_id, event.requester) == (0, 0, "n0", "ops")


def test_a_reader_goes_on_after_the_last_it_saw() -> None:
    log = filled(4)
    assert numbers(log, 0) == [1, 2, 3, 4] and numbers(log, 3) == [4] and numbers(log, 4) == []


def test_the_oldest_are_forgotten_and_numbers_show_the_gap() -> None:
    log = filled(25)
    assert numbers(log, 0) == list(range(16, 26)) and numbers(log, 20) == list(range(21, 26))
    assert [event.sequence for event in log.recent(3)] == [23, 24, 25]


def test_a_number_of_an_earlier_server_gets_everything() -> None:
    log = filled(0)
    assert numbers(log, 57) == []
    log.add(Event(Kind.HEAD_LOST))
    assert numbers(log, 57) == [1]


def test_a_cause_is_cut_short() -> None:
    log = EventLog()
    log.add(Event(Kind.HEAD_LOST, "x" * 100_000))
    assert len(log.recent(1)[0].cause) == 1000


def test_threads_do_not_share_a_number() -> None:
    log = EventLog(10_000)

    def work() -> None:
        for _ in range(500):
            log.add(Event(Kind.HEAD_LOST))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(log, 0) == list(range(1, 2001))


@pytest.mark.parametrize("name", pb.Event.Kind.keys()[1:])
def test_kinds_are_those_of_the_proto(name: str) -> None:
    assert [f"KIND_{kind.name}" for kind in Kind].count(name) == 1
    assert len(Kind) == len(pb.Event.Kind.keys()) - 1
