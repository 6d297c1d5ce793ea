"""The gRPC server: services, health, reflection and limits; it starts, serves and drains."""

import logging
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.engine.served_model import ServedModel
from cluster.gateway.backend import Backend
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.examination.pool import Examination
from cluster.gateway.examination.process import ExaminerProcess
from cluster.gateway.intake import Intake
from cluster.gateway.rpc.calls import CallInterceptor
from cluster.gateway.rpc.health import NOT_SERVING, SERVING, HealthService
from cluster.gateway.rpc.inference import InferenceService
from cluster.gateway.rpc.limits import channel_options
from cluster.gateway.rpc.operations import ClusterService
from cluster.gateway.rpc.reflection import add_reflection
from cluster.gateway.rpc.tls import credentials
from cluster.observe.refusals import Refusals
from cluster.settings.certificates import Certificates
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import TokenFile
from protos.eightwinds.v1 import cluster_pb2, cluster_pb2_grpc, inference_pb2, inference_pb2_grpc

_SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    cluster_pb2.DESCRIPTOR.services_by_name["ClusterService"].full_name,
)


def _is_no_departure(record: logging.LogRecord) -> bool:
    """False for what gRPC logs, with a traceback, when a client is gone before the last message to it is sent."""
    return not (record.exc_info and isinstance(record.exc_info[1], grpc.aio.InternalError))


class Gateway:
    """One listening server. Until it is told that all is good, health is NOT_SERVING."""

    def __init__(
        self, served: ServedModel, max_message_bytes: int, tokens: TokenFile | None, limits: LimitsSection
    ) -> None:
        """With `tokens` every call except health needs one; `limits` are those of docs/limits.md."""
        self.refusals = Refusals()
        examiner = Examiner(served)
        folder = str(served.checkpoint.folder)
        self._apart = ExaminerProcess(folder, limits.examination_cpu_s, limits.examination_memory_bytes)
        self._examination = Examination(lambda work: work(examiner), self._apart.run, limits)
        self._health = HealthService(("", *_SERVICES), limits.watches, self.refusals)
        calls = CallInterceptor(max_message_bytes, limits, self._examination, self.refusals, tokens)
        self.backend = Backend(calls.handled, self.refusals.counts)
        self.intake = Intake(served, self.backend, examiner, self._examination)
        self._server = grpc.aio.server(interceptors=[calls], options=channel_options(limits, max_message_bytes))
        # Any: the stubs want handlers that take a context; CallInterceptor calls them with a Caller.
        inference: Any = InferenceService(self.intake)
        operations: Any = ClusterService(served, self.backend, limits.watches)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, self._server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(operations, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server, (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name))

    async def listen(self, address: str, certificates: Certificates | None = None) -> str:
        """Bind and start, with TLS if there are `certificates`; returns HOST:PORT with the port that the system chose
        for 0. OSError if the port is taken.
        """
        try:
            if certificates:
                port = self._server.add_secure_port(address, credentials(certificates))
            else:
                port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise OSError(f"cannot listen on {address}") from None
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_no_departure)
        await self._server.start()
        return f"{address.rpartition(':')[0]}:{port}"

    def tell(self, good: bool) -> None:
        """Set what grpc.health reports from now on, unless the server drains. Call it on the event loop."""
        if not self.backend.draining:
            self._health.set(SERVING if good else NOT_SERVING)

    async def drain(self, grace: float) -> bool:
        """Refuse new requests and let running ones finish; False if some were cut off after `grace` seconds."""
        self.backend.draining = True
        self._health.set(NOT_SERVING)
        serving, finished = self.backend.serving, True
        if serving and not (finished := await serving.generations.drained(grace)):
            serving.generations.cut_off()
        await self._server.stop(1.0)
        self._examination.close()
        self._apart.close()
        return finished
