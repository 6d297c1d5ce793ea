"""The data plane as the control plane sees it: a head to drive, replicas to start and stop, and their errors."""

from collections.abc import Collection, Mapping
from typing import Protocol

from actors.replica import ReplicaId
from actors.usage import HeadUsage
from actors.vitals import NodeInfo, Vitals
from model.batch import HeadInfo, StepFailure, StepPlan, StepResult


class ClusterMemory(Protocol):
    """Small values that outlive this process; any error may mean that they cannot be reached just now."""

    @property
    def job(self) -> str:
        """The name of this process."""

    def read(self, key: str) -> bytes | None: ...

    def write(self, key: str, value: bytes) -> None: ...

    def write_first(self, key: str, value: bytes) -> bool:
        """Write it unless there is a value already; whether it was written."""

    def forget(self, key: str) -> None: ...

    def keys(self, prefix: str) -> list[str]: ...

    def ended(self, job: str) -> bool:
        """Whether that process has ended for certain; one that cannot be reached may live."""


class HeadLost(Exception):
    """The head's process is gone or does not answer; what it computed is lost."""


class HeadTaken(Exception):
    """Another engine drives this head, of this `epoch` or a higher one."""

    def __init__(self, text: str, epoch: int) -> None:
        super().__init__(text, epoch)
        self.epoch = epoch

    def __str__(self) -> str:
        return str(self.args[0])


class HeadHandle(Protocol):
    """The engine's view of the head. It carries plans out in the order in which they were sent."""

    def begin(self, epoch: int) -> HeadInfo:
        """It forgets every sequence and refuses plans of other epochs. Raises HeadLost or HeadTaken."""

    def submit(self, plan: StepPlan) -> None:
        """Send a plan; another may be under way."""

    def poll(self, timeout: float | None) -> StepResult | StepFailure | None:
        """The next answer, or None after `timeout` seconds. Raises HeadLost."""


class ClusterOps(Protocol):
    """The controller's view of the cluster. Nothing here waits for a replica, but `publish` for a moment. `usage` and
    `nodes` are called from any thread, all else from the controller's.
    """

    def start(self, replica_id: ReplicaId, node_id: str, avoided: Collection[str]) -> None:
        """Begin to start a replica: on this node if one is named, else where there will be room outside `avoided`."""

    def stop(self, replica_id: ReplicaId) -> None:
        """End a replica for good, or the attempt to start it."""

    def ask(self, replica_ids: Collection[ReplicaId]) -> Vitals:
        """Send each a pulse request unless one is outstanding; returns the answers since the previous call. Never
        blocks.
        """

    def ended(self) -> frozenset[ReplicaId]:
        """Published replicas whose process has ended or is cut off; each is returned once."""

    def publish(self, incarnations: Mapping[ReplicaId, str]) -> frozenset[ReplicaId] | None:
        """Have the head route to these and no others. Returns the replicas that did not join because their warm-up call
        failed; None if the head did not carry it out (call again).
        """

    def usage(self) -> HeadUsage | None:
        """None while the head does not answer."""

    def nodes(self) -> list[NodeInfo]: ...
