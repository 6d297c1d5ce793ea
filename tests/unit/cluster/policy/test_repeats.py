from cluster.policy.repeats import Repeats


def test_what_happens_every_second_is_said_once_a_minute_with_how_often() -> None:
    repeats = Repeats(60.0)
    said = {now: text for now in range(130) if (text := repeats.due("lost", float(now))) is not None}
    assert said == {
        0: "",
        60: " (60 times since it was said last, 60 s ago)",
        120: " (60 times since it was said last, 60 s ago)",
    }


def test_kinds_are_apart() -> None:
    repeats = Repeats(60.0)
    assert (repeats.due("a", 0.0), repeats.due("b", 1.0), repeats.due("a", 2.0)) == ("", "", None)
