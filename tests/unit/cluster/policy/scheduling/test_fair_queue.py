"""Who gets a slot next."""

from collections import Counter

import pytest

from cluster.policy.scheduling.fair_queue import FairQueue
from cluster.policy.scheduling.sequence import Sequence
from tests.scheduling import sequence


class Bench:
    """A queue from which sequences run to their end at once, each with `output` tokens."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self._count = 0

    def arrive(self, client: str, prompt: int = 10, priority: int = 0) -> Sequence:
        s = sequence(f"s{self._count}", prompt, client=client, priority=priority)
        s.arrival, self._count = self._count, self._count + 1
        self.queue.arrive(s)
        self.queue.check()
        return s

    def serve(self, output: int = 5) -> Sequence:
        s = self.queue.first()
        assert s is not None
        self.queue.enter(s, s.pending)
        self.queue.check()
        for _ in range(output):
            self.queue.sampled(s)
        self.queue.leave(s)
        self.queue.check()
        return s


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_one_client_is_served_in_the_order_of_arrival(bench: Bench) -> None:
    came = [bench.arrive("ann") for _ in range(5)]
    assert [bench.serve() for _ in range(5)] == came
    assert bench.queue.first() is None


def test_higher_priority_goes_first(bench: Bench) -> None:
    low, high, middle = bench.arrive("ann"), bench.arrive("bob", priority=3), bench.arrive("ann", priority=1)
    assert [bench.serve() for _ in range(3)] == [high, middle, low]


def test_who_sends_much_does_not_hold_up_who_sends_little(bench: Bench) -> None:
    for _ in range(50):
        bench.arrive("flood")
    one = bench.arrive("ann")
    assert one in [bench.serve() for _ in range(2)]


def test_what_counts_is_tokens_not_requests(bench: Bench) -> None:
    for _ in range(60):
        bench.arrive("long", prompt=90)
        bench.arrive("short", prompt=20)
    tokens: Counter[str] = Counter()
    for _ in range(50):
        s = bench.serve(output=5)
        tokens[s.request.client] += s.prompt_length + 2 * 5
    assert tokens["long"] == pytest.approx(tokens["short"], rel=0.1)


def test_absence_earns_nothing(bench: Bench) -> None:
    keep = [bench.arrive("ann") for _ in range(40)]
    for _ in range(20):
        bench.serve()
    late = [bench.arrive("bob") for _ in range(20)]
    order = [bench.serve() for _ in range(10)]
    assert 4 <= sum(s in late for s in order) <= 6, "bob does not get twenty in a row"
    assert keep[20] in order


def test_who_ran_before_comes_back_first_within_its_priority(bench: Bench) -> None:
    first = bench.arrive("ann")
    bench.queue.enter(first, first.pending)
    bench.arrive("bob")
    high = bench.arrive("bob", priority=1)
    bench.queue.resume(first)
    bench.queue.check()
    assert [bench.serve() for _ in range(2)] == [high, first]


def test_waiting_tokens_are_counted(bench: Bench) -> None:
    a, b = bench.arrive("ann", prompt=7), bench.arrive("bob", prompt=5)
    assert (bench.queue.tokens, len(bench.queue), bench.queue.waiting_of("ann")) == (12, 2, 1)
    bench.queue.drop(a)
    bench.queue.leave(a)
    assert (bench.queue.tokens, bench.queue.waiting_of("ann")) == (5, 0)
    assert bench.queue.first() is b


def test_counters_of_clients_who_left_do_not_pile_up(bench: Bench) -> None:
    bench.arrive("stays")
    for i in range(5000):
        s = bench.arrive(f"client {i}", priority=1)
        assert bench.serve() is s
    assert len(bench.queue._served) < 2500
    bench.serve()
    assert not bench.queue._served, "nobody is left to be fair to"


def test_check_sees_miscounting(bench: Bench) -> None:
    bench.arrive("ann")
    bench.queue.tokens += 1
    with pytest.raises(AssertionError, match="miscounted"):
        bench.queue.check()
