"""The memory of a cluster in a test, and the processes that share it."""

from dataclasses import dataclass, field


@dataclass
class FakeMemory:
    """`actors.seams.ClusterMemory` of one process; `of` gives that of another one."""

    job: str = "1"
    values: dict[str, bytes] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)  # processes that have ended
    away: bool = False
    lost: set[str] = field(default_factory=set)  # keys whose next write fails

    def of(self, job: str) -> "FakeMemory":
        """The same values, seen by another process."""
        return FakeMemory(job, self.values, self.dead)

    def read(self, key: str) -> bytes | None:
        self._reach()
        return self.values.get(key)

    def write(self, key: str, value: bytes) -> None:
        self._reach()
        if key in self.lost:
            self.lost.remove(key)
            raise ConnectionError("Ray is away just now")
        self.values[key] = value

    def write_first(self, key: str, value: bytes) -> bool:
        self._reach()
        if key in self.values:
            return False
        self.write(key, value)
        return True

    def forget(self, key: str) -> None:
        self._reach()
        self.values.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        self._reach()
        return [key for key in self.values if key.startswith(prefix)]

    def ended(self, job: str) -> bool:
        self._reach()
        return job in self.dead

    def _reach(self) -> None:
        if self.away:
            raise ConnectionError("Ray is away")
