"""grpc.health.v1 with a bound on its watches. Open to all: load balancers probe it without a token."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from cluster.gateway.errors import ApiError
from cluster.gateway.places import Places
from cluster.gateway.rpc.status import Context, abort, given_id
from cluster.observe.refusals import Refusals

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """(grpcio's own servicer forgets watches when one of several ends, and takes any number.)"""

    def __init__(self, services: Iterable[str], watches: int, refusals: Refusals) -> None:
        self._services, self._state = frozenset(services), NOT_SERVING
        self._changed = asyncio.Event()
        self._places = Places(watches, "TOO_MANY_WATCHES", "watches of health")
        self._refusals = refusals

    def set(self, state: Any) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return pb.HealthCheckResponse(status=self._state)

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> AsyncIterator[pb.HealthCheckResponse]:
        try:
            with self._places:
                last = None
                while True:
                    changed = self._changed
                    state = self._state if request.service in self._services else UNKNOWN
                    if state != last:
                        yield pb.HealthCheckResponse(status=state)
                        last = state
                    await changed.wait()
        except ApiError as error:
            self._refusals.note(error.reason, context.peer())
            await abort(context, error, given_id(context))
