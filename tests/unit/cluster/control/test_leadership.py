"""One server leads, others stand by; each has the same memory."""

import threading
from collections.abc import Callable, Iterator

import pytest

from cluster.control.leadership import CannotLead, Leadership
from cluster.policy.succession import read_lead
from tests.fakes import PATIENCE
from tests.memories import FakeMemory

Serve = Callable[[str], "Server"]


class Server:
    """A process that wants to lead."""

    def __init__(self, memory: FakeMemory) -> None:
        self.memory, self.now, self.obstacle = memory, 0.0, ""
        self.stop, self.leads = threading.Event(), threading.Event()
        self.looks = threading.Event()
        self.leadership = Leadership(memory, f"server {memory.job}", self.clock)
        self.thread = threading.Thread(target=self._wait, daemon=True)

    def _wait(self) -> None:
        if self.leadership.wait(self.stop, lambda: self.obstacle):
            self.leads.set()

    def clock(self) -> float:
        """It is asked at each look."""
        self.looks.set()
        return self.now

    def come(self) -> "Server":
        self.thread.start()
        return self

    def stands_by(self) -> bool:
        """Wait until it has said so."""
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.005)):
            if self.memory.keys(f"standby/{self.memory.job}"):
                return not self.leads.is_set()
            pause.wait(0.005)
        return False


def successor_of(server: Server) -> str:
    return server.leadership.successor


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes a server by the name of its process; the first one's memory is everybody's."""
    made: list[Server] = []

    def make(job: str) -> Server:
        made.append(Server(made[0].memory.of(job) if made else FakeMemory(job)))
        return made[-1].come()

    yield make
    for server in made:
        server.stop.set()
        server.thread.join(PATIENCE)
        server.leadership.end()


def test_the_first_one_leads_and_the_second_stands_by_until_the_first_has_ended(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    second = serve("2")
    assert second.stands_by()
    assert first.leadership.is_awaited()
    first.memory.dead.add("1")
    assert second.leads.wait(PATIENCE)
    assert not second.memory.keys("standby/"), "it stands by no more"
    assert not second.leadership.is_awaited()


def test_one_that_ends_in_order_lets_the_next_in(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    second = serve("2")
    assert second.stands_by()
    first.leadership.end()
    assert second.leads.wait(PATIENCE)


def test_one_that_is_silent_is_succeeded_and_learns_of_it(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    first.leadership._ticker.stop()  # as if frozen
    second = serve("2")
    assert second.stands_by()
    second.now = 60.0
    assert second.leads.wait(PATIENCE)
    assert successor_of(first) == ""
    first.leadership.beat()
    assert successor_of(first) == "server 2"
    assert first.leadership.is_awaited(), "the actors are the other one's"
    first.leadership.end()
    lead = read_lead(second.memory.read("lead"))
    assert lead is not None and (lead.term, lead.job, lead.over) == (2, "2", False)


def test_of_many_that_stand_by_one_leads(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    others = [serve(str(job)) for job in range(2, 8)]
    assert all(other.stands_by() for other in others)
    first.memory.dead.add("1")
    pause = threading.Event()
    while not any(other.leads.is_set() for other in others):
        pause.wait(0.005)
    for _ in range(2):  # the first look may be under way
        for other in others:
            other.looks.clear()
        assert all(other.looks.wait(PATIENCE) for other in others if not other.leads.is_set())
    assert sum(other.leads.is_set() for other in others) == 1


def test_one_whose_ports_are_taken_waits_for_them(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    second = Server(first.memory.of("2"))
    second.obstacle = "cannot listen on 127.0.0.1:1"
    second.come()
    first.memory.dead.add("1")
    assert second.stands_by()
    second.obstacle = ""
    assert second.leads.wait(PATIENCE)
    second.leadership.end()


def test_a_term_whose_holder_ended_before_it_led_is_passed(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    first.memory.write_first("term/2", b"9")
    first.memory.dead |= {"1", "9"}
    second = serve("2")
    assert second.leads.wait(PATIENCE)
    lead = read_lead(second.memory.read("lead"))
    assert lead is not None and lead.term == 3


def test_a_claim_that_broke_off_half_way_is_carried_on(serve: Serve) -> None:
    server = Server(FakeMemory("1", lost={"lead"}))
    server.come()
    assert server.leads.wait(PATIENCE)
    lead = read_lead(server.memory.read("lead"))
    assert lead is not None and (lead.term, lead.job) == (1, "1")
    server.leadership.end()


def test_a_standby_is_known_though_its_first_word_was_lost(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    second = Server(first.memory.of("2"))
    second.memory.lost.add("standby/2")
    second.come()
    assert second.stands_by()
    assert first.leadership.is_awaited()
    second.stop.set()
    second.thread.join(PATIENCE)
    assert not first.leadership.is_awaited(), "it said that it went"


def test_the_only_server_says_what_it_lacks_instead_of_waiting_for_it() -> None:
    leadership = Leadership(FakeMemory("1"), "server 1")
    with pytest.raises(CannotLead, match="cannot listen on ten"):
        leadership.wait(threading.Event(), lambda: "cannot listen on ten")


def test_a_memory_that_is_away_for_a_while_is_waited_for(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    second = serve("2")
    assert second.stands_by()
    first.memory.away = second.memory.away = True
    first.leadership.beat()
    second.looks.clear()
    assert second.looks.wait(PATIENCE)
    assert "cannot be told that this server lives" in caplog.text and "cannot be asked who leads" in caplog.text
    first.memory.away = second.memory.away = False
    first.memory.dead.add("1")
    assert second.leads.wait(PATIENCE)


def test_who_cannot_ask_the_memory_keeps_the_actors_and_ends_all_the_same(serve: Serve) -> None:
    first = serve("1")
    assert first.leads.wait(PATIENCE)
    first.memory.away = True
    assert first.leadership.is_awaited()
    first.leadership.end()
    first.memory.away = False
