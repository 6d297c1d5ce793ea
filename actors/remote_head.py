"""The head's actor, as the engine sees it: `actors.messages.HeadHandle`."""

import pickle
from collections.abc import Callable
from typing import Any

import ray

from actors.messages import HeadLost, HeadTaken, RouterOptions
from actors.remote import Members, cause
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult


class RemoteHead:
    """A `HeadHandle` on a head actor. After `HeadLost` the engine calls `begin` until the restarted head answers."""

    def __init__(
        self,
        head: Any,
        members: Callable[[], Members],
        options: RouterOptions,
        begin_timeout: float = 120.0,
    ) -> None:
        """`members` is asked at each `begin`."""
        self._head, self._members, self._options, self._begin_timeout = head, members, options, begin_timeout
        self._ref: Any = None

    def begin(self, epoch: int) -> HeadInfo:
        """See `HeadHandle`."""
        self._ref = None
        ref = self._head.adopt.remote(epoch, self._members(), self._options)
        info: HeadInfo = self._get(ref, self._begin_timeout)
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
            return None
        ref, self._ref = self._ref, None
        result: StepResult | StepFailure = pickle.loads(self._get(ref, None))
        return result

    def _get(self, ref: Any, timeout: float | None) -> Any:
        try:
            return ray.get(ref, timeout=timeout)
        except HeadTaken:
            raise
        except ray.exceptions.RayError as error:  # died, unavailable, timed out: what it had is in doubt
            raise HeadLost(cause(error)) from None
