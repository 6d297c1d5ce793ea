"""`transport: local`: head and experts in this process, without Ray. For a laptop, and for tests."""

import threading
import time

from actors.expert import Expert
from actors.head import Head, LocalHead
from actors.replica import one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.transport.local import LocalTransport
from cluster.launch.deployment import Deployment, LaunchFailed, LaunchStopped, ProgressReport, actor_specs
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint

_PAUSE = 0.02


def launch(config: Config, checkpoint: Checkpoint, report: ProgressReport, stop: threading.Event) -> Deployment:
    """Load everything here; raises LaunchFailed or LaunchStopped."""
    head_spec, expert_specs = actor_specs(config, checkpoint)
    try:
        head, experts = Head(head_spec), [Expert(spec) for spec in expert_specs]
    except ValueError as error:
        raise LaunchFailed(str(error)) from None
    actors: dict[str, Head | Expert] = {"head": head, **{f"expert-{e.expert}": e for e in experts}}
    while True:
        progress = {name: actor.progress() for name, actor in actors.items()}
        report("loading weights", progress)
        failed = next((f"{name}: {p.error}" for name, p in progress.items() if p.error), None)
        if failed:
            raise LaunchFailed(failed)
        if all(p.ready for p in progress.values()):
            break
        if stop.is_set():
            raise LaunchStopped
        time.sleep(_PAUSE)
    head.connect(ExpertRouter(LocalTransport(), Replicas(one_each(experts))))
    return Deployment(LocalHead(head), lambda keep: None)
