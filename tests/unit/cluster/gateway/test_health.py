from types import SimpleNamespace
from typing import Any

import pytest

from cluster.control.fixed import FixedReplicas
from cluster.gateway.health import Health, Obstacle, obstacle

HEAD, EXPERT = Obstacle("the head does not answer"), Obstacle("no replica of expert 3 is ready", lasting=False)


class Server:
    """What is wrong with it, and what was told of it."""

    def __init__(self) -> None:
        self.wrong: Obstacle | Exception | None = None
        self.now = 100.0
        self.told: list[bool] = []
        self.health = Health(self.look, self.told.append, lambda: self.now)

    def look(self) -> Obstacle | None:
        if isinstance(self.wrong, Exception):
            raise self.wrong
        return self.wrong

    def met(self, wrong: Obstacle | Exception | None, times: int = 1) -> None:
        self.wrong = wrong
        for _ in range(times):
            self.health.look_now()
            self.now += 2


@pytest.fixture
def server() -> Server:
    return Server()


def test_it_is_good_until_a_look_says_otherwise(server: Server) -> None:
    assert server.health.good
    server.met(None)
    assert server.health.good and server.health.why == "" and server.told == []


def test_a_change_is_told_and_logged_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.met(HEAD, 3)
    assert server.told == [False] and server.health.why == HEAD.why
    assert caplog.text.count(HEAD.why) == 1
    server.met(None)
    assert server.told == [False, True] and server.health.good


def test_another_obstacle_is_no_change_of_the_answer(server: Server) -> None:
    server.met(HEAD)
    server.met(EXPERT)
    assert server.told == [False] and server.health.why == EXPERT.why


def test_only_lasting_obstacles_count_towards_an_end_and_any_of_them(server: Server) -> None:
    server.met(EXPERT, 50)
    assert server.health.lasting_seconds == 0
    server.met(HEAD, 2)
    server.met(ConnectionError("no route"), 2)
    assert server.health.lasting_seconds == 8
    server.met(EXPERT)
    assert server.health.lasting_seconds == 0


def test_a_final_obstacle_is_not_waited_for(server: Server) -> None:
    server.met(Obstacle("raylet has ended", final=True))
    assert server.health.lasting_seconds == float("inf") and not server.health.good


def test_what_cannot_be_asked_is_not_healthy(server: Server) -> None:
    server.met(ConnectionError("no route to the head"))
    assert server.health.why == "ConnectionError: no route to the head" and server.told == [False]


def test_the_thread_ends_when_told(server: Server) -> None:
    server.health.stop()  # before it began
    server.health.start()
    server.health.stop()
    assert not server.health._ticker._thread.is_alive()


def engine(alive: bool = True, adopted: bool = True) -> Any:
    return SimpleNamespace(alive=alive, adopted=adopted)


def controller(answers: bool = True, unserved: tuple[int, ...] = ()) -> Any:
    return SimpleNamespace(usage=lambda: object() if answers else None, unserved=lambda: unserved)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ((engine(), controller()), None),
        ((engine(), FixedReplicas(2)), None),
        ((engine(alive=False), controller()), Obstacle("the engine has ended")),
        ((engine(adopted=False), controller()), Obstacle("the head is waited for")),
        ((engine(), controller(answers=False)), Obstacle("the head does not answer")),
        (
            (engine(), controller(unserved=(3, 5))),
            Obstacle("no replica of expert 3, 5 is ready", lasting=False),
        ),
    ],
    ids=["well", "in one process", "engine", "adoption", "head", "experts"],
)
def test_what_a_request_would_meet(wrong: tuple[Any, Any], found: Obstacle | None) -> None:
    assert obstacle(*wrong) == found


def test_what_is_broken_comes_first() -> None:
    assert obstacle(engine(alive=False), controller(), lambda: "raylet has ended") == Obstacle(
        "raylet has ended", final=True
    )
    assert obstacle(engine(), controller(), lambda: "") is None
