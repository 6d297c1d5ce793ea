"""The head's actor, as the engine sees it: `actors.seams.HeadHandle`."""

import pickle
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import ray

from actors.head_watch import HeadWatch, Look
from actors.remote.actors import cause, pulses_in
from actors.remote.exits import memory_exits
from actors.routing.route_table import RouteUpdate
from actors.seams import HeadLost, HeadTaken
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult

_LOOK_SECONDS = 1.0


class RemoteHead:
    """After `HeadLost` the engine calls `begin` until the restarted head answers. `actors.head_watch` says when a head
    that does not answer is ended, upon which Ray starts it anew.
    """

    def __init__(
        self, head: Any, routes: Callable[[int], RouteUpdate], grace: float, hang_seconds: float, begin_timeout: float
    ) -> None:
        """`routes` is asked at each `begin`, and told the epoch; `grace` is the router's."""
        self._head, self._routes, self._grace = head, routes, grace
        self._watch = HeadWatch(hang_seconds, begin_timeout)
        self._refs: deque[Any] = deque()  # of the plans under way
        self._pulse: Any = None  # asked for because a call takes long
        self._exits = memory_exits()

    def begin(self, epoch: int) -> HeadInfo:
        self._refs.clear()
        self._pulse = None
        self._watch.begun()
        update = self._routes(epoch)
        self._head.route.remote(update)  # at once; `adopt` comes behind the step that runs
        ref = self._head.adopt.remote(epoch, update, self._grace)
        while not ray.wait([ref], timeout=_LOOK_SECONDS)[0]:
            self._look_for_life()
        info: HeadInfo = self._get(ref)
        self._pulse = None
        self._watch.called_back()
        return info

    def submit(self, plan: StepPlan) -> None:
        self._refs.append(self._head.step.remote(pickle.dumps(plan)))

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        if not self._refs:
            return None
        done, _ = ray.wait([self._refs[0]], timeout=timeout)
        if not done:
            self._look_for_life()
            return None
        self._pulse = None
        result: StepResult | StepFailure = pickle.loads(self._get(self._refs.popleft()))
        self._watch.called_back()
        return result

    def _look_for_life(self) -> None:
        if self._pulse is not None and ray.wait([self._pulse], timeout=0)[0]:
            answered, _, _ = pulses_in([(self._pulse, "head")])
            self._pulse = None
            self._watch.pulse_ended(bool(answered))
        look = self._watch.look(time.monotonic())
        if look is Look.ASK:
            self._pulse = self._head.pulse.remote()
        elif look is Look.END:
            ray.kill(self._head, no_restart=False)
            raise HeadLost(f"it did not answer for {self._watch.patience:g} s and was ended")

    def _get(self, ref: Any) -> Any:
        try:
            return ray.get(ref)
        except HeadTaken as error:  # Ray's own kind of it has our attributes no more
            raise getattr(error, "cause", error) from None
        except ray.exceptions.RayError as error:  # died or unavailable: what it had is in doubt
            known, self._exits = self._exits, memory_exits()
            full = next((why for process, why in self._exits.items() if process not in known), "")
            more = f"; of a process that ended meanwhile: {full}" if full else ""
            raise HeadLost(cause(error) + more) from None
