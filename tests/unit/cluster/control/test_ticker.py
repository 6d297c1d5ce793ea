"""The thread of a control loop."""

import threading

import pytest

from cluster.control.ticker import Ticker
from tests.fakes import PATIENCE


def test_a_turn_comes_when_it_is_woken_and_none_after_the_end() -> None:
    turned = threading.Event()
    ticker = Ticker("loop", turned.set, lambda: None)
    ticker.start()
    assert not turned.is_set(), "it begins with a pause, which never ends by itself"
    ticker.wake()
    assert turned.wait(PATIENCE)
    turned.clear()
    ticker.stop()
    assert not turned.is_set() and "loop" not in [thread.name for thread in threading.enumerate()]


def test_a_turn_that_fails_is_logged_and_the_next_one_comes_after_the_pause(caplog: pytest.LogCaptureFixture) -> None:
    again = threading.Event()
    turns: list[int] = []

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise RuntimeError("Ray is away")
        again.set()

    ticker = Ticker("loop", turn, lambda: 0.0)
    ticker.start()
    assert again.wait(PATIENCE)
    ticker.stop()
    assert "the loop failed" in caplog.text and "Ray is away" in caplog.text


def test_one_that_never_began_can_be_stopped() -> None:
    Ticker("loop", lambda: None, lambda: None).stop()
