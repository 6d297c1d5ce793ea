"""Whether a request would be served now. Balancers and supervisors act on it, so a wrong answer must not last: it is
asked for every `INTERVAL` seconds, and the head has two seconds to answer, so it is never older than five.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.control.controller import Controller
from cluster.control.fixed import FixedReplicas
from cluster.control.ticker import Ticker
from cluster.engine.engine import Engine

log = logging.getLogger("eightwinds.health")

INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The reason why a request would fail. A `lasting` one is not mended by a node that comes back: a server that
    cannot get rid of it has to end. With a `final` one there is nothing to wait for.
    """

    why: str
    lasting: bool = True
    final: bool = False


def obstacle(
    engine: Engine, controller: Controller | FixedReplicas, broken: Callable[[], str] = lambda: ""
) -> Obstacle | None:
    """Ask the head and count the replicas; None if a request would be served. `broken` names what has ended that all
    else needs, such as Ray's own processes.
    """
    if why := broken():
        return Obstacle(why, final=True)
    if not engine.alive:
        return Obstacle("the engine has ended")
    if not engine.adopted:
        return Obstacle("the head is waited for")
    if controller.usage() is None:
        return Obstacle("the head does not answer")
    if experts := controller.unserved():
        return Obstacle(f"no replica of expert {', '.join(map(str, experts))} is ready", lasting=False)
    return None


class Health:
    """Asks `look`, and tells `changed` when a request would be served no longer, or again. Good until the first look
    says otherwise.
    """

    def __init__(
        self,
        look: Callable[[], Obstacle | None],
        changed: Callable[[bool], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._changed, self._clock = look, changed, clock
        self._obstacle: Obstacle | None = None
        self._lasting_since: float | None = None
        self._ticker = Ticker("health", self.look_now, lambda: INTERVAL)

    def start(self) -> None:
        self._ticker.start()

    def stop(self) -> None:
        self._ticker.stop(5.0)

    @property
    def good(self) -> bool:
        return self._obstacle is None

    @property
    def why(self) -> str:
        """Why a request would fail; "" if it would be served."""
        return self._obstacle.why if self._obstacle else ""

    @property
    def lasting_seconds(self) -> float:
        """For how long there has been a lasting obstacle, whichever; endless with a final one."""
        if self._obstacle is not None and self._obstacle.final:
            return math.inf
        return 0.0 if self._lasting_since is None else self._clock() - self._lasting_since

    def look_now(self) -> None:
        try:
            found = self._look()
        except Exception as error:  # whatever cannot be asked is not healthy, and the next look tries again
            found = Obstacle(f"{type(error).__name__}: {error}")
        before, self._obstacle = self.good, found
        if found is None or not found.lasting:
            self._lasting_since = None
        elif self._lasting_since is None:
            self._lasting_since = self._clock()
        if self.good == before:
            return
        if found:
            log.warning("requests would not be served now: %s", found.why)
        else:
            log.info("requests are served again")
        self._changed(self.good)
