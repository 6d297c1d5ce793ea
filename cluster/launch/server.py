"""A server: engine, controller, gateway and ports on the actors of a runtime, wired once for all who need one."""

import asyncio
import functools
import socket
import threading
import time

from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.control.fixed import FixedReplicas
from cluster.engine.engine import Engine
from cluster.engine.generation import GenerationRequest, Generations
from cluster.engine.served_model import ServedModel
from cluster.gateway.auth import Tokens
from cluster.gateway.backend import Serving
from cluster.gateway.health import Health, obstacle
from cluster.gateway.rpc.server import Gateway
from cluster.gateway.web.server import HttpServer, application
from cluster.launch.runtime import Deployment, Runtime
from cluster.launch.specs import engine_config, replica_options, scaling_policy
from cluster.policy.replicas.membership import Membership
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.config import Config
from model.batch import SamplingParams


class Server:
    """`listen`, `start`, `warm_up` and `open` bring it up, `drain` and `close` down. Until it is open requests get
    UNAVAILABLE. All of it is called on the event loop on which it was made; `close` ends it in any state.
    """

    def __init__(self, config: Config, served: ServedModel, runtime: Runtime, tokens: Tokens | None = None) -> None:
        """With `tokens` callers need one. `bounds` are the engine's, until `start`."""
        self._config, self._served, self._runtime = config, served, runtime
        self._loop = asyncio.get_running_loop()
        self.bounds = engine_config(config, served.checkpoint.config.sliding_window)
        self.gateway = Gateway(served, config.gateway.max_message_bytes, tokens, config.limits)
        self.generations = Generations(served.tokenizer, self._loop, config.gateway.max_buffered_tokens)
        backend = self.gateway.backend
        page = application(lambda: backend.ready, backend.metrics)
        self._http = HttpServer(page, config.limits, self.gateway.refusals)
        self._deployment: Deployment | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, from `start` on."""
        assert self._engine is not None, "start it first"
        return self._engine

    async def listen(self, http: socket.socket) -> str:
        """Answer on both ports, `http` being that of HTTP; returns gRPC's HOST:PORT. OSError if it is taken."""
        address = await self.gateway.listen(self._config.gateway.listen)
        await self._http.start(http)
        return address

    async def start(self, stop: threading.Event) -> None:
        """Bring up the actors and an engine on their head. Raises what `Runtime.start` raises, or HeadLost."""
        self._deployment = await asyncio.to_thread(self._runtime.start, stop)
        self._engine = Engine(
            self._deployment.head, self.bounds, self.generations.sink, events=self.gateway.backend.events
        )
        await asyncio.to_thread(self._engine.start)

    async def warm_up(self) -> None:
        """One request through everything, so that the first client does not pay for lazy initialisation. Raises
        GenerationFailed.
        """
        request = GenerationRequest(
            "warm-up",
            SequenceRequest(
                tuple(self._served.tokenizer.encode("warm up")), SamplingParams(temperature=0.0), max_tokens=2
            ),
        )
        with self.generations.running(request, self.engine) as generation:
            async for _ in generation.pieces():
                pass

    async def open(self) -> None:
        """Take requests, keep the replicas as they should be, and watch over all of it."""
        assert self._deployment is not None, "start it first"
        controller, autoscaler = self._replicas(self._deployment)
        look = functools.partial(obstacle, self.engine, controller, self._deployment.broken)
        health = Health(look, lambda good: self._loop.call_soon_threadsafe(self.gateway.tell, good))
        self.gateway.backend.state = Serving(
            self.generations,
            self.engine,
            controller,
            autoscaler,
            health,
            started=time.monotonic(),
            device="cuda" if self._config.experts.num_gpus else "cpu",
            transport="local" if self._config.runtime == "in_process" else self._config.transport,
        )
        for thread in (controller, autoscaler, health):
            thread.start()
        await self.gateway.serve()

    def beyond_help(self, patience: float) -> str:
        """Why only another process can do better: the engine has ended by itself, or no request would have been served
        for `patience` seconds. "" otherwise.
        """
        state = self.gateway.backend.state
        assert isinstance(state, Serving), "open it first"
        health = state.health
        if self.engine.alive and health.lasting_seconds < patience:
            return ""
        return health.why or "the engine has ended"

    async def drain(self, grace: float) -> bool:
        """Refuse new requests and let running ones finish; False if some were cut off after `grace` seconds."""
        return await self.gateway.drain(grace)

    async def close(self, keep_actors: bool) -> None:
        """Let go of everything."""
        await self.gateway.drain(0)
        state = self.gateway.backend.state
        if isinstance(state, Serving):  # before the engine, whose end it would report as a fault
            await asyncio.to_thread(state.health.stop)
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)
        await self._http.stop()
        if isinstance(state, Serving):
            for thread in (state.autoscaler, state.controller):
                await asyncio.to_thread(thread.stop)
        if self._deployment is None:
            await asyncio.to_thread(self._runtime.abandon)
        else:
            await asyncio.to_thread(self._deployment.close, keep_actors)

    def _replicas(self, deployment: Deployment) -> tuple[Controller, Autoscaler] | tuple[FixedReplicas, FixedReplicas]:
        """What keeps the replicas that run, and what scales them; those of an earlier server are wanted still."""
        if deployment.ops is None:
            fixed = FixedReplicas(self._config.experts.count)
            return fixed, fixed
        running = [sum(replica.expert == e for replica in deployment.pulses) for e in range(self._config.experts.count)]
        counts = [max(self._config.experts.replicas, count) for count in running]
        membership = Membership(counts, replica_options(self._config))
        membership.adopt(deployment.pulses, time.monotonic())
        events = self.gateway.backend.events
        controller = Controller(deployment.ops, membership, events=events)
        return controller, Autoscaler(controller, scaling_policy(self._config), events=events)
