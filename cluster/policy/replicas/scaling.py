"""How many replicas each expert should have, by how busy they are. At constant traffic it comes to rest: an expert goes
up only above `scale_up_utilization`, and down only if the replicas that are left would stay below it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """`cooldown` is in seconds. Utilization is the share of time in which a replica computes, mean over an expert's."""

    enabled: bool
    min_replica_count: int
    max_replica_count: int
    max_total_replica_count: int
    scale_up_utilization: float
    scale_down_utilization: float
    cooldown: float

    def problems(self, experts: int) -> list[tuple[str, str]]:
        """Its wrong fields for so many experts: (field, why)."""
        found = []
        if self.min_replica_count < 1:
            found.append(("min_replica_count", "must be at least 1"))
        if self.max_replica_count < self.min_replica_count:
            found.append(("max_replica_count", f"must be at least min_replica_count ({self.min_replica_count})"))
        least = experts * max(1, self.min_replica_count)
        if self.max_total_replica_count < least:
            found.append(("max_total_replica_count", f"must be at least {least}: {experts} experts times the minimum"))
        if not 0 < self.scale_up_utilization <= 1:
            found.append(("scale_up_utilization", "must be above 0 and at most 1"))
        if not 0 <= self.scale_down_utilization < self.scale_up_utilization:
            found.append(("scale_down_utilization", "must be at least 0 and below scale_up_utilization"))
        if not 0 <= self.cooldown < math.inf:
            found.append(("cooldown", "must be at least 0 s"))
        return found


@dataclass(frozen=True, slots=True)
class Use:
    """An expert since the last look: replicas wanted and ready, their utilization, seconds since its last change."""

    expert: int
    desired: int
    ready: int
    utilization: float
    since_change: float = math.inf


def decide(policy: ScalingPolicy, uses: Sequence[Use]) -> dict[int, int]:
    """The experts whose counts change, with their new ones; never more than the policy allows in all.

    Up: to where the utilization would be halfway between the thresholds, at most to twice as many. Down: by one. An
    expert within its cooldown, or not yet as large as wanted, is left alone unless it is out of the policy's bounds.
    Where the total does not allow all, the busiest expert gets the next one.
    """
    if not policy.enabled:
        return {}
    wanted = {u.expert: _wanted(policy, u) for u in uses}
    granted = {u.expert: min(wanted[u.expert], max(u.desired, policy.min_replica_count)) for u in uses}
    work = {u.expert: u.utilization * max(1, u.ready) for u in uses}

    def busy(expert: int) -> tuple[float, int]:
        return work[expert] / granted[expert], -expert

    while sum(granted.values()) > policy.max_total_replica_count:
        most = [e for e, count in granted.items() if count > policy.min_replica_count]
        granted[min(most, key=busy)] -= 1
    while sum(granted.values()) < policy.max_total_replica_count:
        more = [e for e, count in granted.items() if count < wanted[e]]
        if not more:
            break
        granted[max(more, key=busy)] += 1
    return {u.expert: granted[u.expert] for u in uses if granted[u.expert] != u.desired}


def _wanted(policy: ScalingPolicy, use: Use) -> int:
    count = min(policy.max_replica_count, max(policy.min_replica_count, use.desired))
    if count != use.desired or use.since_change < policy.cooldown or use.ready != use.desired:
        return count
    work = use.utilization * count
    if use.utilization > policy.scale_up_utilization:
        middle = (policy.scale_up_utilization + policy.scale_down_utilization) / 2
        return min(policy.max_replica_count, 2 * count, max(count + 1, math.ceil(work / middle)))
    idle = use.utilization < policy.scale_down_utilization and count > policy.min_replica_count
    return count - 1 if idle and work / (count - 1) < policy.scale_up_utilization else count
