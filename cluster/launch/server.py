"""A server: engine, controller, gateway and ports on the actors of a runtime, wired once for all who need one."""

import asyncio
import functools
import socket
import threading
import time
from collections import Counter

from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.control.fixed import FixedReplicas
from cluster.control.wishes import Wishes
from cluster.engine.engine import Engine
from cluster.engine.generation import GenerationRequest, Generations
from cluster.engine.served_model import ServedModel
from cluster.gateway.backend import Serving
from cluster.gateway.health import Health, obstacle
from cluster.gateway.openai.front import Front, unknown_path
from cluster.gateway.rpc.server import Gateway
from cluster.gateway.web.server import HttpServer, application
from cluster.launch.runtime import Deployment, Runtime
from cluster.launch.specs import engine_config, needs, replica_options, scaling_policy
from cluster.policy.replicas.membership import Membership
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.certificates import Certificates
from cluster.settings.config import Config, listed
from cluster.settings.tokens import TokenFile
from model.batch import SamplingParams


class Server:
    """`listen`, `start`, `warm_up` and `open` bring it up, `gateway.drain` and `close` down, `close` in any state.
    Until it is open requests get UNAVAILABLE. All of it is called on the event loop on which it was made.
    """

    def __init__(
        self,
        config: Config,
        served: ServedModel,
        runtime: Runtime,
        tokens: TokenFile | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """With `tokens` callers need one; with `certificates` both ports speak TLS. `bounds` are the engine's, until
        `start`.
        """
        self._certificates = certificates
        self._config, self._served, self._runtime = config, served, runtime
        self._loop = asyncio.get_running_loop()
        self.bounds = engine_config(config, served.checkpoint.config.sliding_window)
        self.gateway = Gateway(served, config.gateway.max_message_bytes, tokens, config.limits)
        self.generations = Generations(served.tokenizer, self._loop, config.gateway.max_buffered_tokens)
        backend = self.gateway.backend
        body_bytes = config.gateway.max_message_bytes
        front = Front(self.gateway.intake, self.gateway.refusals, tokens, body_bytes, config.limits)
        origins = listed(config.gateway.cors_origins)
        page = application(lambda: backend.ready, backend.metrics, front.routes(), unknown_path, origins)
        self._http = HttpServer(page, config.limits, self.gateway.refusals, certificates)
        self._deployment: Deployment | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "start it first"
        return self._engine

    async def listen(self, http: socket.socket) -> str:
        """Answer on both ports, `http` being that of HTTP; returns gRPC's HOST:PORT. OSError if it is taken."""
        address = await self.gateway.listen(self._config.gateway.listen, self._certificates)
        await self._http.start(http)
        return address

    async def start(self, stop: threading.Event) -> None:
        """Bring up the actors and an engine on their head. Raises what `Runtime.start` raises, or HeadLost."""
        self._deployment = await asyncio.to_thread(self._runtime.start, stop)
        events = self.gateway.backend.events
        self._engine = Engine(self._deployment.head, self.bounds, self.generations.sink, events=events)
        await asyncio.to_thread(self._engine.start)

    async def warm_up(self) -> None:
        """One request, so that the first client does not pay for lazy initialisation. Raises GenerationFailed."""
        prompt = tuple(self._served.tokenizer.encode("warm up"))
        sequence = SequenceRequest(prompt, SamplingParams(temperature=0.0), max_tokens=2)
        with self.generations.running(GenerationRequest("warm-up", sequence), self.engine) as generation:
            async for _ in generation.pieces():
                pass

    async def open(self) -> None:
        """Take requests, keep the replicas as they should be, and watch over all of it."""
        assert self._deployment is not None, "start it first"
        controller, autoscaler = await asyncio.to_thread(self._replicas, self._deployment)  # it may ask Ray
        look = functools.partial(obstacle, self.engine, controller, self._deployment.broken)
        health = Health(look, lambda good: self._loop.call_soon_threadsafe(self.gateway.tell, good))
        device = "cuda" if self._config.experts.num_gpus else "cpu"
        transport = "local" if self._config.runtime == "in_process" else self._config.transport
        self.gateway.backend.serving = Serving(
            self.generations, self.engine, controller, autoscaler, health, time.monotonic(), device, transport
        )
        for thread in (controller, autoscaler, health):
            thread.start()
        self.gateway.tell(True)

    def beyond_help(self, patience: float) -> str:
        """Why only another process can help: the engine has ended, or nothing was served for `patience` s. Else ""."""
        assert self.gateway.backend.serving is not None, "open it first"
        health = self.gateway.backend.serving.health
        if self.engine.alive and health.lasting_seconds < patience:
            return ""
        return health.why or "the engine has ended"

    async def close(self, keep_actors: bool) -> None:
        await self.gateway.drain(0)
        serving = self.gateway.backend.serving
        if serving:  # before the engine, whose end it would report as a fault
            await asyncio.to_thread(serving.health.stop)
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)
        await self._http.stop()
        if serving:
            for thread in (serving.autoscaler, serving.controller):
                await asyncio.to_thread(thread.stop)
        if self._deployment is None:
            await asyncio.to_thread(self._runtime.abandon)
        else:
            await asyncio.to_thread(self._deployment.close, keep_actors)

    def _replicas(self, deployment: Deployment) -> tuple[Controller, Autoscaler] | tuple[FixedReplicas, FixedReplicas]:
        """The controller and the autoscaler; they go on wanting the replicas of an earlier server."""
        count, least = self._config.experts.count, self._config.experts.replicas
        if deployment.ops is None:
            fixed = FixedReplicas(count)
            return fixed, fixed
        running = Counter(replica.expert for replica in deployment.pulses)
        configured, now = scaling_policy(self._config), time.monotonic()
        wishes = Wishes(deployment.memory, least, configured)
        asked, drains = wishes.replicas(count)
        counts = asked or [max(least, running[expert]) for expert in range(count)]
        _, replica_needs = needs(self._config, self._served.checkpoint)
        membership = Membership(counts, replica_options(self._config, replica_needs))
        membership.adopt(deployment.pulses, now)
        for node_id, seconds in drains.items():
            membership.desired.drain(node_id, now + seconds)
        events = self.gateway.backend.events
        controller = Controller(deployment.ops, membership, events=events, keep=wishes.keep_replicas)
        policy = wishes.policy() or configured
        return controller, Autoscaler(controller, policy, events=events, keep=wishes.keep_policy)
