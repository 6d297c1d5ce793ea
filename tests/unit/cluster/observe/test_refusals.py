"""Refusals are counted all, and told seldom."""

import logging

import pytest

from cluster.observe.refusals import Refusals, Reluctance


def test_a_flood_of_refusals_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    with caplog.at_level(logging.WARNING, "eightwinds.refused"):
        for _ in range(18_000):
            refusals.note("TOKEN_MISSING", "ipv4:192.0.2.7:1")
            now[0] += 1 / 1024
    assert refusals.counts == {"TOKEN_MISSING": 18_000}
    assert [record.getMessage() for record in caplog.records] == [
        "refused 1 with TOKEN_MISSING, 1 in all; the last one from ipv4:192.0.2.7:1",
        "refused 10240 with TOKEN_MISSING, 10241 in all; the last one from ipv4:192.0.2.7:1",
    ]


def test_each_reason_has_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(lambda: 5.0)
    with caplog.at_level(logging.WARNING, "eightwinds.refused"):
        for reason in ("QUEUE_FULL", "TOKEN_UNKNOWN", "QUEUE_FULL"):
            refusals.note(reason)
    assert len(caplog.records) == 2
    assert refusals.counts == {"QUEUE_FULL": 2, "TOKEN_UNKNOWN": 1}


def test_a_few_refusals_a_second_are_answered_at_once_and_more_are_held_back() -> None:
    reluctance = Reluctance(at_once=3, seconds=2.0)
    assert [reluctance.seconds("a", 10.1, 0) for _ in range(5)] == [0, 0, 0, 2.0, 2.0]
    assert reluctance.seconds("b", 10.9, 0) == 0, "each address for itself"
    assert reluctance.seconds("a", 11.0, 0) == 0, "a second later there are some again"


def test_so_many_are_held_at_a_time() -> None:
    reluctance = Reluctance(at_once=0, seconds=1.0, most=2)
    assert [reluctance.seconds("a", 0.0, held) for held in range(4)] == [1.0, 1.0, 0, 0]
