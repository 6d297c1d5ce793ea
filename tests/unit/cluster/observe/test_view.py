"""Counts by size."""

from cluster.observe.view import Histogram


def test_a_bound_belongs_to_its_own_bucket_and_the_last_has_no_end() -> None:
    histogram = Histogram((0.5, 2.0))
    for value in (0.1, 0.5, 0.6, 2.0, 99.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("0.5", 2.0), ("2", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == 102.2
