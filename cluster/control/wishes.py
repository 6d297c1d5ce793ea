"""Wishes of operators, and of scaling by usage, kept for the server that comes after the one that they were made to."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from actors.seams import ClusterMemory
from cluster.policy.replicas.scaling import ScalingPolicy

log = logging.getLogger("eightwinds.wishes")

_REPLICAS, _POLICY = "wishes/replicas", "wishes/policy"


def forget_wishes(memory: ClusterMemory) -> None:
    """The actors end, and what was asked for with them."""
    with contextlib.suppress(Exception):  # Ray may be gone, and its memory with it
        for key in (_REPLICAS, _POLICY):
            memory.forget(key)


class Wishes:
    """Counts of replicas, drained nodes and the policy, each with what the configuration said then: a server with
    another configuration goes by that. Times of drains are those of the wall clock, because they outlive a process.
    """

    def __init__(
        self, memory: ClusterMemory | None, replicas: int, policy: ScalingPolicy, wall: Callable[[], float] = time.time
    ) -> None:
        """`replicas` and `policy` are the configuration's; without a `memory` nothing is kept."""
        self._memory, self._wall = memory, wall
        self._configured_replicas, self._configured_policy = replicas, asdict(policy)

    def keep_replicas(self, counts: Sequence[int], drains: Mapping[str, float]) -> None:
        """`drains` gives the seconds that each node still has, infinity if it is empty."""
        until = {node: None if math.isinf(left) else self._wall() + left for node, left in drains.items()}
        self._keep(_REPLICAS, self._configured_replicas, {"counts": list(counts), "drains": until})

    def replicas(self, experts: int) -> tuple[list[int] | None, dict[str, float]]:
        """The counts, None if nobody asked for other ones than the configuration's, and the drains."""
        kept = self._kept(_REPLICAS, self._configured_replicas)
        if kept is None or len(kept["counts"]) != experts:
            return None, {}
        ends = {node: math.inf if end is None else end - self._wall() for node, end in kept["drains"].items()}
        return kept["counts"], {node: left for node, left in ends.items() if left > 0}

    def keep_policy(self, policy: ScalingPolicy) -> None:
        self._keep(_POLICY, self._configured_policy, asdict(policy))

    def policy(self) -> ScalingPolicy | None:
        """The policy that somebody has set, or None."""
        kept = self._kept(_POLICY, self._configured_policy)
        return None if kept is None else ScalingPolicy(**kept)

    def _keep(self, key: str, configured: object, asked: object) -> None:
        if self._memory is None:
            return
        try:
            self._memory.write(key, json.dumps({"configured": configured, "asked": asked}).encode())
        except Exception as error:  # it is in force all the same, and only a later server would miss it
            log.warning("not kept for a later server: %s", error)

    def _kept(self, key: str, configured: object) -> Any:
        if self._memory is None:
            return None
        try:
            record = self._memory.read(key)
        except Exception as error:  # as above
            log.warning("what an earlier server was asked for is not known: %s", error)
            return None
        found = {} if record is None else json.loads(record)
        return found.get("asked") if found.get("configured") == configured else None
