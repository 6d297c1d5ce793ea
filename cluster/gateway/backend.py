"""The server behind the services: it starts, then serves, then drains."""

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
    device: str
    transport: str


class Backend:
    """The server as its services see it, and what has happened. `serving` is None until the model is loaded; a server
    that is `draining` takes no new request.
    """

    def __init__(self, handled: Mapping[tuple[str, str, str], int], refused: Mapping[str, int]) -> None:
        """Counts of finished calls by (service, method, code) and of refusals by reason, which go on growing."""
        self.serving: Serving | None = None
        self.draining = False
        self.events = EventLog()
        self._handled, self._refused = handled, refused

    @property
    def ready(self) -> bool:
        return self.serving is not None and not self.draining and self.serving.health.good

    def require(self, new_work: bool = True) -> Serving:
        """The parts that serve a call, or UNAVAILABLE. A server that drains still takes calls without `new_work`."""
        if new_work and self.draining:
            raise unavailable("DRAINING", "the server is shutting down; ask another, or this one later", 5.0)
        if self.serving is None:
            raise unavailable("STARTING", "the server is loading the model", 2.0)
        return self.serving

    async def view(self, ask_head: bool = True) -> ClusterView:
        """The server as it is now, or UNAVAILABLE. Without `ask_head` it waits for no answer of the head."""
        at = self.require(new_work=False)

        def view() -> ClusterView:
            head = at.controller.usage() if ask_head else None  # first, because a head that is away takes 2 s
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

        return await asyncio.to_thread(view)

    async def metrics(self) -> bytes:
        """The text of /metrics; nothing while the server starts."""
        return exposition(await self.view()) if self.serving else b""
