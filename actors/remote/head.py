"""The head's actor, as the engine sees it: `actors.seams.HeadHandle`."""

import pickle
import time
from collections.abc import Callable
from typing import Any

import ray

from actors.remote.actors import Members, cause, pulses_in
from actors.remote.exits import memory_exits
from actors.seams import HeadLost, HeadTaken
from actors.specs import RouterOptions
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult

_LOOK_SECONDS = 1.0


class RemoteHead:
    """A `HeadHandle` on a head actor. After `HeadLost` the engine calls `begin` until the restarted head answers.

    A step may take as long as it takes, and so may the loading of weights, but a head that is at it still answers its
    `pulse`. One that has answered and does so no more for `hang_seconds` is ended, upon which Ray starts it anew. One
    whose process has not answered yet has `begin_timeout` seconds for that.
    """

    def __init__(
        self,
        head: Any,
        members: Callable[[int], Members],
        options: RouterOptions,
        hang_seconds: float,
        begin_timeout: float = 120.0,
    ) -> None:
        """`members` is asked at each `begin`, and told the epoch."""
        self._head, self._members, self._options = head, members, options
        self._hang_seconds, self._begin_timeout = hang_seconds, begin_timeout
        self._ref: Any = None
        self._exits = memory_exits()
        self._pulse: Any = None  # asked for because a call takes long
        self._asked_at, self._patience = 0.0, begin_timeout

    def begin(self, epoch: int) -> HeadInfo:
        """See `HeadHandle`."""
        self._ref = self._pulse = None
        self._patience = self._begin_timeout
        ref = self._head.adopt.remote(epoch, self._members(epoch), self._options)
        while not ray.wait([ref], timeout=_LOOK_SECONDS)[0]:
            self._look_for_life()
        info: HeadInfo = self._get(ref)
        self._pulse, self._patience = None, self._hang_seconds
        return info

    def submit(self, plan: StepPlan) -> None:
        """See `HeadHandle`."""
        self._ref = self._head.step.remote(pickle.dumps(plan))

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        """See `HeadHandle`."""
        if self._ref is None:
            return None
        done, _ = ray.wait([self._ref], timeout=timeout)
        if not done:
            self._look_for_life()
            return None
        ref, self._ref, self._pulse = self._ref, None, None
        result: StepResult | StepFailure = pickle.loads(self._get(ref))
        return result

    def _look_for_life(self) -> None:
        if self._pulse is not None and ray.wait([self._pulse], timeout=0)[0]:
            pulses, _, _ = pulses_in([(self._pulse, "head")])
            self._pulse = None
            if pulses:  # else it ended, which the end of the call tells
                self._patience = self._hang_seconds
        if self._pulse is None:
            self._pulse, self._asked_at = self._head.pulse.remote(), time.monotonic()
        elif time.monotonic() - self._asked_at > self._patience:
            ray.kill(self._head, no_restart=False)
            raise HeadLost(f"it did not answer for {self._patience:g} s and was ended")

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
