import logging

import pytest

from cluster.observe.said_once import SaidOnce


def test_the_same_warning_is_said_once_whatever_its_detail(caplog: pytest.LogCaptureFixture) -> None:
    said = SaidOnce(logging.getLogger("test"))
    for now in range(30):
        said.warn(float(now), "expert %d is lost", 3, detail=f"attempt {now}")
    said.warn(31.0, "expert %d is lost", 4)
    assert [record.getMessage() for record in caplog.records] == ["expert 3 is lost: attempt 0", "expert 4 is lost"]
    said.warn(61.0, "expert %d is lost", 3, detail="still")
    assert caplog.records[-1].getMessage() == "expert 3 is lost: still (30 times since it was said last, 61 s ago)"


def test_what_happens_every_second_is_said_once_a_minute_with_how_often(caplog: pytest.LogCaptureFixture) -> None:
    said = SaidOnce(logging.getLogger("test"))
    for now in range(130):
        said.warn(float(now), "lost")
    often = "lost (60 times since it was said last, 60 s ago)"
    assert [record.getMessage() for record in caplog.records] == ["lost", often, often]
