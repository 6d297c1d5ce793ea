"""Counts what each replica does, for the thread that routes; other threads take snapshots."""

from collections import defaultdict

from actors.replica import Replica, ReplicaId
from actors.usage import ReplicaUsage, bucket_of


class UsageCounter:
    def __init__(self, expert_count: int) -> None:
        self.retries, self.hedges = [0] * expert_count, [0] * expert_count
        self._replicas = defaultdict[ReplicaId, ReplicaUsage](ReplicaUsage)

    def served(self, replica: Replica, rows: int, seconds: float) -> None:
        usage = self._replicas[replica.id]
        usage.calls += 1
        usage.rows += rows
        usage.busy_seconds += seconds
        usage.times[bucket_of(seconds)] += 1

    def again(self, expert: int, hedged: bool) -> None:
        (self.hedges if hedged else self.retries)[expert] += 1

    def snapshot(self) -> dict[ReplicaId, ReplicaUsage]:
        found = dict(self._replicas)  # one step under the interpreter's lock
        return {k: ReplicaUsage(v.calls, v.rows, v.busy_seconds, list(v.times)) for k, v in found.items()}
