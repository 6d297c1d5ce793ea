"""A Ray cluster that was there before any server of ours, as `ray start --head` makes it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.launch.local_ray import marks
from cluster.launch.local_ray.daemon import LOOPBACK, _free_port
from tests.integration.server import wait_for


@contextmanager
def ray_cluster(name: str, **environment: str) -> Iterator[str]:
    """Its address, on loopback; it ends with the `with`. `name` marks its processes."""
    folder, mark = Path(tempfile.mkdtemp(prefix="ewc-")), f"{name}-test-{os.getpid()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--port=0", f"--temp-dir={folder}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000"]
    command += ["--disable-usage-stats", "--include-dashboard=false", "--include-log-monitor=false", "--no-monitor"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={_free_port()}"]
    known = os.environ | LOOPBACK | environment | marks.mark(mark)
    with (folder / "log").open("w") as log:
        subprocess.Popen(command, env=known, stdout=log, stderr=log, start_new_session=True).wait(60)
    try:
        current = folder / "ray_current_cluster"
        wait_for(current.exists, (folder / "log").read_text())
        yield current.read_text().strip()
    finally:
        marks.end(mark)
