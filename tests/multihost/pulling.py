"""Only the host of `serve` has the checkpoint: the others get the tensors of their actors from it, once."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.engine.served_model import DEMO_FOLDER
from tests.chaos.stage import Row
from tests.chaos.streams import Tally
from tests.multihost.cluster import PORT, PlainCluster
from tests.multihost.hosts import Host, Hosts
from tests.multihost.operator_host import compare

_ELSEWHERE = "/root/checkpoint"  # of the first host alone
_CACHE = Path("home") / ".cache" / "eightwinds"
NAME = "weights come from the host of serve"


def pull() -> Row:
    """Serve, lose a host and let it come back, remove the caches. What is wrong is told as a failed request."""
    tally, begin = Tally(), time.monotonic()
    with Hosts(3) as hosts:
        first, *others = hosts.all
        shutil.copytree(DEMO_FOLDER, first.disk / "home" / Path(_ELSEWHERE).name)
        settings = [f"model.path={_ELSEWHERE}", "model.pull=true", "head.resources={worker: 0.1}"]
        cluster = PlainCluster(hosts, settings)
        compare(tally, first, cluster.serves[0].address)
        whole = sum(file.stat().st_size for file in DEMO_FOLDER.glob("*.safetensors"))
        shares = [_brought(host) / whole for host in others]
        if _brought(first) or not all(0.1 < share < 0.95 for share in shares):
            tally.failed.append(f"{_brought(first)} bytes on the first host; of the whole on others: {shares}")
        host = cluster.other_worker()
        records = dict(_records(host))
        host.kill()
        cluster.wait_lost(host)
        host.boot()
        cluster.join(host)
        cluster.wait_node(host)
        cluster.spread()
        again = dict(_records(host))
        if changed := [name for name, at in records.items() if again.get(name) != at]:
            tally.failed.append(f"brought again after a boot: {changed}")
        cluster.close()
        cluster.serves[0].terminate()
        down = ["eightwinds", "down", f"--ray-address={first.address}:{PORT}", "--cache"]
        said = first.run(*down, environment={"RAY_AUTH_MODE": "disabled"})
        if left := [host.name for host in hosts.all if (host.disk / _CACHE).exists()]:
            tally.failed.append(f"caches are left on {left}: {said}")
        print(said, file=sys.stderr)
    notes = "of the checkpoint on each other host: " + ", ".join(f"{share:.0%}" for share in shares)
    return Row(NAME, 1, Tally(), tally, [(begin, time.monotonic())], notes)


def _brought(host: Host) -> int:
    """Bytes of weights on its disk."""
    return sum(file.stat().st_blocks * 512 for file in (host.disk / _CACHE).rglob("*.safetensors"))


def _records(host: Host) -> Iterator[tuple[str, float]]:
    """When each reader's record changed last."""
    for file in (host.disk / _CACHE).rglob(".*.spans"):
        yield file.name, file.stat().st_mtime
