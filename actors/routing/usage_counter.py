"""Counts what each replica does, for the thread that routes; other threads take snapshots."""

from actors.replica import Replica
from actors.usage import ReplicaUsage, bucket_of


class UsageCounter:
    """Written by the thread that routes."""

    def __init__(self, expert_count: int) -> None:
        self.retries, self.hedges = [0] * expert_count, [0] * expert_count
        self._replicas: dict[tuple[int, int], ReplicaUsage] = {}

    def served(self, replica: Replica, rows: int, seconds: float) -> None:
        """A replica answered."""
        key = replica.expert, replica.slot
        load = self._replicas.get(key)
        if load is None:
            load = self._replicas[key] = ReplicaUsage()
        load.calls += 1
        load.rows += rows
        load.busy_seconds += seconds
        load.times[bucket_of(seconds)] += 1

    def again(self, expert: int, hedged: bool) -> None:
        """A call was sent to another replica as well."""
        (self.hedges if hedged else self.retries)[expert] += 1

    def snapshot(self) -> dict[tuple[int, int], ReplicaUsage]:
        """A copy, by (expert, slot)."""
        found = dict(self._replicas)  # one step under the interpreter's lock
        return {k: ReplicaUsage(v.calls, v.rows, v.busy_seconds, list(v.times)) for k, v in found.items()}
