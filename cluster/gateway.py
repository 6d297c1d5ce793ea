"""The gRPC server: services, health, reflection, limits, and its way from starting over serving to drained."""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cluster.gateway_auth import AuthInterceptor, Tokens
from cluster.gateway_backend import Backend
from cluster.gateway_cluster import ClusterService
from cluster.gateway_errors import ErrorInterceptor
from cluster.gateway_inference import InferenceService
from cluster.gateway_reflection import add_reflection
from cluster.served_model import ServedModel
from protos.eightwinds.v1 import cluster_pb2, cluster_pb2_grpc, inference_pb2, inference_pb2_grpc

_SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Gateway:
    """One listening server. Until `serve` is called requests get UNAVAILABLE and health is NOT_SERVING."""

    def __init__(self, served: ServedModel, max_message_bytes: int, tokens: Tokens | None = None) -> None:
        """With `tokens` every call but those of health needs one."""
        self.backend = Backend()
        self._health = health.aio.HealthServicer()
        errors = ErrorInterceptor(max_message_bytes)
        self.handled = errors.handled
        self._server = grpc.aio.server(
            interceptors=[AuthInterceptor(tokens), errors],
            options=[
                ("grpc.so_reuseport", 0),  # or a second server would silently share the port
                # A bound for memory only: gRPC refuses without details, so our own limit comes first.
                ("grpc.max_receive_message_length", min(4 * max_message_bytes, 2**31 - 1)),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # else a pinging client gets GOAWAY
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceService(served, self.backend), self._server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(ClusterService(served, self.backend), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server, (*_SERVICES, health.SERVICE_NAME))

    async def listen(self, address: str) -> str:
        """Bind and start; returns HOST:PORT with the port chosen where 0 was asked. OSError if it is taken."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise OSError(f"cannot listen on {address}")
        await self._set_health(_NOT_SERVING)
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    async def serve(self) -> None:
        """Say SERVING; the backend has been filled in."""
        await self._set_health(_SERVING)

    async def drain(self, grace: float) -> bool:
        """Refuse new requests and let running ones finish; False if some were cut off after `grace` seconds."""
        self.backend.draining = True
        await self._set_health(_NOT_SERVING)
        generations = self.backend.generations
        finished = generations is None or await generations.drained(grace)
        if generations is not None and not finished:
            generations.cut_off()
        await self._server.stop(1.0)
        return finished

    async def _set_health(self, status: Any) -> None:
        for service in ("", *_SERVICES):
            await self._health.set(service, status)
