"""A client that has no slot gets one soon, whatever others have filled the server with."""

import pytest

from cluster.policy.scheduling.limits import Limits
from tests.scheduling import Bench, alone, sequence


def full(bench: Bench, slots: int, priority: int = 0) -> None:
    bench.add(*(sequence(f"f{i}", 4, 60, client="flood", priority=priority) for i in range(slots + 5)))
    for _ in range(4):
        bench.step()
    assert len(bench.scheduler.running()) == slots


def test_it_has_its_first_token_after_two_steps_and_the_others_lose_none() -> None:
    bench = Bench(Limits(8, 64, 300, 4))
    full(bench, 8)
    bench.add(sequence("ann", 6, 3, client="ann"))
    assert [n.token_ids for n in bench.step().admit] == [tuple(sequence("ann", 6).token_ids)]
    assert bench.tokens("ann"), "its prompt fits into one step"
    bench.finish()
    for i in range(13):
        assert bench.tokens(f"f{i}") == alone(sequence(f"f{i}", 4, 60, client="flood"))[0]
    assert bench.tokens("ann") == alone(sequence("ann", 6, 3, client="ann"))[0]


def test_the_last_one_of_the_client_with_most_slots_gives_way() -> None:
    bench = Bench(Limits(4, 64, 300, 4))
    bench.add(sequence("b0", 4, 60, client="bob"))
    bench.add(*(sequence(f"f{i}", 4, 60, client="flood") for i in range(3)))
    bench.step()
    bench.add(sequence("ann", 6, 3, client="ann"))
    bench.step()
    assert {s.id for s in bench.scheduler.running()} == {"b0", "f0", "f1", "ann"}


def test_several_come_in_one_after_the_other() -> None:
    bench = Bench(Limits(8, 64, 300, 4))
    full(bench, 8)
    names = ("ann", "bob", "cat")
    bench.add(*(sequence(name, 6, 30, client=name) for name in names))
    for _ in names:
        bench.step()
    assert all(bench.tokens(name) for name in names)


def test_pages_give_way_as_slots_do() -> None:
    bench = Bench(Limits(16, 64, 24, 4, prefix_caching=False))
    bench.add(*(sequence(f"f{i}", 12, 30, client="flood") for i in range(8)))
    for _ in range(3):
        bench.step()
    bench.add(sequence("ann", 30, 2, client="ann"))
    for _ in range(2):
        bench.step()
    assert bench.tokens("ann")
    bench.finish()


@pytest.mark.parametrize(
    ("slots", "client", "priority"), [(1, "flood", 0), (4, "flood", 1)], ids=["an only slot", "a higher priority"]
)
def test_is_not_taken(slots: int, client: str, priority: int) -> None:
    bench = Bench(Limits(slots, 64, 300, 4))
    full(bench, slots, priority)
    before = {s.id for s in bench.scheduler.running()}
    bench.add(sequence("ann", 6, 3, client="ann"))
    for _ in range(5):
        bench.step()
    assert {s.id for s in bench.scheduler.running()} == before


def test_a_client_that_has_a_slot_waits_for_its_turn() -> None:
    bench = Bench(Limits(4, 64, 300, 4))
    bench.add(sequence("a0", 4, 60, client="ann"), *(sequence(f"f{i}", 4, 60, client="flood") for i in range(3)))
    bench.step()
    bench.add(sequence("a1", 4, 60, client="ann"))
    for _ in range(5):
        bench.step()
    assert {s.id for s in bench.scheduler.running()} == {"a0", "f0", "f1", "f2"}
