"""When a head that does not answer is ended."""

from actors.head_watch import HeadWatch, Look


def watch() -> HeadWatch:
    return HeadWatch(hang_seconds=30.0, begin_seconds=120.0)


def test_a_call_that_takes_long_is_no_reason_while_pulses_are_answered() -> None:
    head = watch()
    for now in range(0, 1000, 10):
        assert head.look(float(now)) is Look.ASK
        head.pulse_ended(answered=True)


def test_a_pulse_under_way_is_waited_for_and_not_sent_twice() -> None:
    head = watch()
    assert [head.look(now) for now in (0.0, 1.0, 119.0)] == [Look.ASK, Look.WAIT, Look.WAIT]


def test_a_process_that_has_not_answered_yet_has_the_longer_time() -> None:
    head = watch()
    head.look(0.0)
    assert head.look(120.0) is Look.WAIT and head.look(120.1) is Look.END and head.patience == 120.0


def test_a_head_that_has_answered_before_has_the_shorter_time() -> None:
    for by_pulse in (True, False):
        head = watch()
        head.look(0.0)
        if by_pulse:
            head.pulse_ended(answered=True)
        else:
            head.called_back()
        assert head.look(100.0) is Look.ASK
        assert head.look(130.0) is Look.WAIT and head.look(130.1) is Look.END and head.patience == 30.0


def test_a_pulse_that_failed_shortens_nothing() -> None:
    head = watch()
    head.look(0.0)
    head.pulse_ended(answered=False)
    assert head.look(50.0) is Look.ASK and head.look(169.0) is Look.WAIT


def test_a_head_that_begins_anew_has_the_longer_time_again() -> None:
    head = watch()
    head.called_back()
    head.begun()
    head.look(0.0)
    assert head.look(119.0) is Look.WAIT
