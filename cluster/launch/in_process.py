"""`runtime: in_process`: head and experts in this process, without Ray. For a laptop, and for tests."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from actors.environment import use_large_pages
from actors.expert import Expert
from actors.head import Head, LocalHead
from actors.replica import ReplicaId, one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.seams import HeadHandle
from actors.threads import threads_for
from actors.transport.local import LocalTransport
from actors.vitals import Pulse
from cluster.launch.runtime import LaunchFailed, LaunchStopped, ProgressReport
from cluster.launch.specs import actor_specs
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint
from model.device.threads import compute_with


@dataclass(frozen=True, slots=True)
class HeadOnly:
    """A `Deployment` of a head in this process: its experts cannot be changed, and nothing outlives it."""

    head: HeadHandle
    ops: None = None
    memory: None = None
    pulses: Mapping[ReplicaId, Pulse] = field(default_factory=dict)

    def broken(self) -> str:
        return ""

    def close(self, keep: bool) -> None:
        pass


class InProcess:
    """See `cluster.launch.runtime.Runtime`."""

    def __init__(self, config: Config, checkpoint: Checkpoint, report: ProgressReport) -> None:
        self._config, self._checkpoint, self._report = config, checkpoint, report

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        pass

    def start(self, stop: threading.Event) -> HeadOnly:
        head_spec, expert_specs = actor_specs(self._config, self._checkpoint)
        threads = head_spec.threads or threads_for(self._checkpoint.config.hidden_size, 1)
        use_large_pages()
        compute_with(threads)  # of the whole process: head and experts take turns
        try:
            head = Head(replace(head_spec, micro_batches=1))  # here experts compute while they are asked
            experts = [Expert(spec) for spec in expert_specs]
        except ValueError as error:
            raise LaunchFailed(str(error)) from None
        self._wait_for_weights({"head": head, **{f"expert-{e.expert}": e for e in experts}}, stop)
        head.connect(ExpertRouter(LocalTransport(), Replicas(one_each(experts)), grace=self._config.experts.grace_s))
        return HeadOnly(LocalHead(head))

    def abandon(self) -> None:
        pass

    def _wait_for_weights(self, actors: Mapping[str, Head | Expert], stop: threading.Event) -> None:
        while True:
            progress = {name: actor.progress() for name, actor in actors.items()}
            self._report("loading weights", progress)
            for name, p in progress.items():
                if p.error:
                    raise LaunchFailed(f"{name}: {p.error}")
            if all(p.ready for p in progress.values()):
                return
            if stop.wait(0.02):
                raise LaunchStopped
