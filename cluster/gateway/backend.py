"""What the services stand on once the server is up."""

from dataclasses import dataclass

from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.engine.engine import Engine
from cluster.engine.generation import Generations
from cluster.gateway.errors import unavailable
from cluster.gateway.health import Health


@dataclass(slots=True)
class Backend:
    """Filled in when head and experts are ready; `draining` refuses new requests.

    `controller` and `autoscaler` are None where replicas cannot be changed, `health` where none is asked for. `device`
    is the experts' torch device, `started` the event loop's time at which serving began.
    """

    generations: Generations | None = None
    engine: Engine | None = None
    controller: Controller | None = None
    autoscaler: Autoscaler | None = None
    health: Health | None = None
    device: str = "cpu"
    started: float = 0.0
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether a request would be taken and served."""
        return self.engine is not None and not self.draining and (self.health is None or self.health.good)

    def take(self) -> tuple[Generations, Engine]:
        """What requests run on, or UNAVAILABLE."""
        if self.draining:
            raise unavailable("DRAINING", "the server is shutting down; ask another, or this one later", 5.0)
        return self.look()

    def look(self) -> tuple[Generations, Engine]:
        """The same for those who only look: they may while the server drains, too."""
        if self.engine is None or self.generations is None:
            raise unavailable("STARTING", "the server is loading the model", 2.0)
        return self.generations, self.engine
