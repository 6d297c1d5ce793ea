"""What the services stand on: a server that starts, then one that serves."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.control.fixed import FixedReplicas
from cluster.engine.engine import Engine
from cluster.engine.generation import Generations
from cluster.gateway.errors import unavailable
from cluster.gateway.health import Health
from cluster.observe.events import EventLog
from cluster.observe.metrics import exposition
from cluster.observe.view import ClusterView

_SHOWN_EVENTS = 10  # in a view


@dataclass(frozen=True, slots=True)
class Starting:
    """The model is being loaded."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Head and experts are ready. `started` is `time.monotonic()` when that was so, `device` the experts' torch device,
    `transport` the configured one.
    """

    generations: Generations
    engine: Engine
    controller: Controller | FixedReplicas
    autoscaler: Autoscaler | FixedReplicas
    health: Health
    started: float
    device: str = "cpu"
    transport: str = "local"


class Backend:
    """The server's state, which `serve` sets, and what has happened. `draining` refuses new requests."""

    def __init__(self, handled: Mapping[tuple[str, str, str], int], refused: Mapping[str, int]) -> None:
        """Counts of finished calls by (service, method, code) and of refusals by reason, which go on growing."""
        self.state: Starting | Serving = Starting()
        self.draining = False
        self.events = EventLog()
        self._handled, self._refused = handled, refused

    @property
    def ready(self) -> bool:
        """Whether a request would be taken and served."""
        return isinstance(self.state, Serving) and not self.draining and self.state.health.good

    def take(self) -> Serving:
        """What requests run on, or UNAVAILABLE."""
        if self.draining:
            raise unavailable("DRAINING", "the server is shutting down; ask another, or this one later", 5.0)
        return self.look()

    def look(self) -> Serving:
        """The same for a caller that only looks, which is allowed while the server drains, too."""
        if isinstance(self.state, Starting):
            raise unavailable("STARTING", "the server is loading the model", 2.0)
        return self.state

    async def view(self, ask_head: bool = True) -> ClusterView:
        """The server as it is now, or UNAVAILABLE. Without `ask_head` it waits for no answer of the head."""
        return await asyncio.to_thread(self._view, self.look(), ask_head)

    async def metrics(self) -> bytes:
        """The text of /metrics; nothing while the server starts."""
        return exposition(await self.view()) if isinstance(self.state, Serving) else b""

    def _view(self, at: Serving, ask_head: bool) -> ClusterView:
        head = at.controller.load() if ask_head else None  # first, because a head that is away takes 2 s
        return ClusterView(
            at=time.monotonic(),
            replicas=at.controller.snapshot(),
            head=head,
            engine=at.engine.counters(),
            requests=at.generations.stats.copy(),
            handled=dict(self._handled),
            refused=dict(self._refused),
            policy=at.autoscaler.policy,
            events=tuple(self.events.recent(_SHOWN_EVENTS)),
            started=at.started,
            device=at.device,
            transport=at.transport,
        )
