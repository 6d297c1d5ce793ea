"""grpc.health.v1 with a bound on its watches. Open to all: load balancers probe it without a token."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from cluster.gateway.errors import ApiError
from cluster.gateway.rpc.limits import Places
from cluster.gateway.rpc.status import Context, abort, given_id
from cluster.observe.refusals import Refusals

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """(grpcio's own servicer forgets watches when one of several ends, and takes any number.)"""

    def __init__(self, watches: int, refusals: Refusals) -> None:
        self._states: dict[str, Any] = {}
        self._changed = asyncio.Event()
        self._places = Places(watches, "TOO_MANY_WATCHES", "watches of health")
        self._refusals = refusals

    def set(self, service: str, state: Any) -> None:
        """Set a service's state and tell its watches."""
        self._states[service] = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        if request.service not in self._states:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return pb.HealthCheckResponse(status=self._states[request.service])

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> AsyncIterator[pb.HealthCheckResponse]:
        try:
            with self._places:
                last = None
                while True:
                    changed = self._changed
                    state = self._states.get(request.service, pb.HealthCheckResponse.SERVICE_UNKNOWN)
                    if state != last:
                        yield pb.HealthCheckResponse(status=state)
                        last = state
                    await changed.wait()
        except ApiError as error:
            self._refusals.note(error.reason, context.peer())
            await abort(context, error, given_id(context))
