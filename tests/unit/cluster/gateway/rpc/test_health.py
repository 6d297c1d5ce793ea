"""Health: its watches are told of changes, and bounded."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from cluster.engine.served_model import ServedModel
from cluster.gateway.rpc.health import NOT_SERVING, SERVING, HealthService
from cluster.observe.refusals import Refusals
from cluster.settings.sections import LimitsSection
from tests.fakes import PATIENCE
from tests.serving import Serving, failure


@pytest.fixture
def server(demo: ServedModel) -> Iterator[Serving]:
    server = Serving(demo, limits=LimitsSection(watches=3))
    yield server
    server.close()


def watch(server: Serving) -> Any:
    return health_pb2_grpc.HealthStub(server.channel).Watch(pb.HealthCheckRequest(), timeout=PATIENCE)


def test_watches_are_bounded_and_checks_go_on(server: Serving) -> None:
    watches = [watch(server) for _ in range(3)]
    assert [next(each).status for each in watches] == [NOT_SERVING] * 3
    told = failure(lambda: next(watch(server)))
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
    assert told.retry_seconds == 1.0
    assert server.gateway.refusals.counts["TOO_MANY_WATCHES"] == 1
    check = health_pb2_grpc.HealthStub(server.channel).Check
    assert check(pb.HealthCheckRequest(), timeout=PATIENCE).status == NOT_SERVING
    for each in watches:
        each.cancel()


async def test_a_watch_that_leaves_takes_no_other_one_along() -> None:
    """grpcio's own servicer forgets all of a service's watches when the first one leaves."""
    health = HealthService([""], 8, Refusals())
    context: Any = None
    first: Any
    second: Any
    watches: list[Any] = [health.Watch(pb.HealthCheckRequest(), context) for _ in range(2)]
    first, second = watches
    assert (await anext(first)).status == (await anext(second)).status == NOT_SERVING
    await first.aclose()
    waiting = asyncio.ensure_future(anext(second))
    await asyncio.sleep(0)
    health.set(SERVING)
    assert (await waiting).status == SERVING
    await second.aclose()


async def test_an_unknown_service_is_unknown_whatever_happens() -> None:
    health = HealthService(["known"], 8, Refusals())
    context: Any = None
    unknown: Any = health.Watch(pb.HealthCheckRequest(service="other"), context)
    known: Any = health.Watch(pb.HealthCheckRequest(service="known"), context)
    assert (await anext(unknown)).status == pb.HealthCheckResponse.SERVICE_UNKNOWN
    assert (await anext(known)).status == NOT_SERVING
    waiting = [asyncio.ensure_future(anext(watching)) for watching in (unknown, known)]
    await asyncio.sleep(0)
    health.set(SERVING)
    assert (await waiting[1]).status == SERVING
    assert not waiting[0].done()
    waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await known.aclose()
