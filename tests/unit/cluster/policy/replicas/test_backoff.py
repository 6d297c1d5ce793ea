"""Pauses that grow."""

from cluster.policy.replicas.backoff import Backoff


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    backoff, now, lengths = Backoff(), 100.0, list[float]()
    assert not backoff.pauses(0, now)
    for _ in range(6):
        backoff.failed(0, now)
        begin = now
        while backoff.pauses(0, now):
            now += 1.0
        lengths.append(now - begin)
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    backoff.failed(0, now)
    assert not backoff.pauses(1, now), "another expert is not paused with it"
    backoff.cleared(0)
    assert not backoff.pauses(0, now)
    backoff.failed(0, now)
    assert backoff.pauses(0, now + 4.9) and not backoff.pauses(0, now + 5.0)
