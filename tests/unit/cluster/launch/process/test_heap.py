from cluster.launch.process.heap import Trimming

MB = 1 << 20


def test_memory_is_given_back_once_it_has_grown_and_grows_no_longer() -> None:
    trimming = Trimming(500 * MB)
    held = [510 * MB, 560 * MB, 700 * MB, 720 * MB]
    assert not any(trimming.due(each) for each in held), "a little more, and growing"
    assert trimming.due(720 * MB)
    trimming.done(650 * MB)
    assert not trimming.due(650 * MB), "what is left is in use"
    assert not trimming.due(720 * MB)
    assert trimming.due(719 * MB)
