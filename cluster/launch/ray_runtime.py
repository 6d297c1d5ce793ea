"""Actors on Ray: on a local one of our own, or on the cluster at `cluster.ray_address`. `start` imports Ray."""

import os
import threading
from collections.abc import Callable

from cluster.control.leadership import Leadership
from cluster.launch.local_ray import daemon
from cluster.launch.runtime import Deployment, ProgressReport
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint


class RayRuntime:
    """See `Runtime`. A local Ray begins to start at once, so that it comes up while `start` imports Ray."""

    def __init__(self, config: Config, checkpoint: Checkpoint, report: ProgressReport) -> None:
        # Ray's own handler turns SIGTERM into an abort after 3 s; the variable is read when Ray is imported.
        os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
        self._config, self._checkpoint, self._report = config, checkpoint, report
        cpus = 1 + config.experts.count
        self._leadership: Leadership | None = None
        self._local = daemon.prepare(config.cluster.namespace, config.cluster.ray_address, cpus)

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        if self._local is None:  # nobody else knows of a local Ray
            from cluster.launch.on_ray.joining import lead

            self._leadership = lead(self._config, stop, obstacle)

    def start(self, stop: threading.Event) -> Deployment:
        from cluster.launch.on_ray.deployment import launch

        return launch(self._config, self._checkpoint, self._local, self._leadership, self._report, stop)

    def abandon(self) -> None:
        if self._local is not None:
            self._local.remove()
