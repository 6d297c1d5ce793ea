"""Refusals are counted all, and told seldom."""

import logging

import pytest

from cluster.observe.refusals import Refusals


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
