"""Before it serves and while it drains a server says why not; a view of it is a copy."""

import pytest

from cluster.gateway.backend import Backend
from cluster.gateway.errors import ApiError
from tests.serving import Serving


def test_one_that_starts_serves_nobody() -> None:
    backend = Backend({}, {})
    assert not backend.ready
    for new_work in (True, False):
        with pytest.raises(ApiError, match="loading the model"):
            backend.require(new_work)


def test_one_that_drains_may_be_looked_at(serving: Serving) -> None:
    backend = Backend({}, {})
    backend.serving = serving.gateway.backend.require()
    readiness = [backend.ready]
    backend.draining = True
    readiness.append(backend.ready)
    assert readiness == [True, False] and backend.require(new_work=False) is backend.serving
    with pytest.raises(ApiError, match="shutting down"):
        backend.require()


def test_what_is_counted_later_does_not_change_a_view(serving: Serving) -> None:
    view = serving.run(serving.gateway.backend.view())
    stats, counters = serving.generations.stats, serving.engine.statistics.counters
    before = view.requests.gap.sum, dict(view.requests.finished), view.engine.step_seconds["decode"].sum
    stats.gap.observe(7.0)
    stats.finished["made up"] = 1
    counters.step_seconds["decode"].observe(7.0)
    assert (view.requests.gap.sum, view.requests.finished, view.engine.step_seconds["decode"].sum) == before
    del stats.finished["made up"]
