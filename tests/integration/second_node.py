"""A second Ray node on this machine: a raylet with workers of its own, as another host would have."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.integration.server import Server, wait_for

# Ray takes a loopback address for a mistake (`LOOPBACK` of the local Ray), and allows no second node where it does not.
_START = (
    "from ray._private import services; services.get_node_ip_address = lambda *_: '127.0.0.1'; "
    "from ray.scripts.scripts import main; main()"
)
_ROOT = Path(__file__).resolve().parent.parent.parent


class SecondNode:
    """Joins a server's local Ray; `kill` is what the loss of a host is."""

    def __init__(self, server: Server, cpus: int = 16) -> None:
        assert server.local is not None
        self._server = server
        before = self._nodes()
        command = [sys.executable, "-c", _START, "start", f"--address={server.local.address}", "--block"]
        command += ["--node-ip-address=127.0.0.1", f"--num-cpus={cpus}", "--object-store-memory=200000000"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
        environment = server.environment | {"PYTHONPATH": str(_ROOT), "RAY_worker_niceness": "0"}
        self._log = (server.state / "second-node.log").open("w+")
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, env=environment, start_new_session=True
        )
        wait_for(lambda: bool(self._nodes() - before), "the second node", 60.0)
        (self.node_id,) = self._nodes() - before

    def _nodes(self) -> set[str]:
        """Ids of those that are ready."""
        with self._server.client() as client:
            return {node.id for node in client.status().nodes if node.state == node.STATE_READY}

    def _processes(self) -> list[psutil.Process]:
        """Those of its session, and what they have started."""
        try:
            mine = psutil.Process(self._process.pid)
        except psutil.NoSuchProcess:
            return []
        return [mine, *mine.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL for its raylet, whose workers end with it."""
        (raylet,) = [p for p in self._processes() if p.name() == "raylet"]
        os.kill(raylet.pid, signal.SIGKILL)

    def close(self) -> None:
        """End all of it."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(20)
        self._log.close()
