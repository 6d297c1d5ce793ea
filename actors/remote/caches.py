"""The folders on the machines that hold mirrors of checkpoints, and their end."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import ray

from actors.remote.places import only_on

_SECONDS = 60.0  # for a machine to remove its mirrors


def mirrors(cache: str) -> Path:
    """The folder of mirrors in a cache, which holds nothing else."""
    return Path(cache).expanduser() / "mirrors"


def empty_caches(cache: str) -> list[str]:
    """Remove the mirrors on every machine of the cluster; a line for each that had some, or did not say."""
    asked = {}
    for node in [node for node in ray.nodes() if node["Alive"]]:  # type: ignore[no-untyped-call]
        remove: Any = ray.remote(_remove).options(num_cpus=0, scheduling_strategy=only_on(node["NodeID"]))
        asked[remove.remote(cache)] = str(node["NodeManagerAddress"])
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS)
    lines = [f"the weights on {asked[ref]} are left: it did not answer" for ref in silent]
    for ref in done:
        try:
            before, after = ray.get(ref)
        except ray.exceptions.RayError as error:
            lines.append(f"the weights on {asked[ref]} are left: {type(error).__name__}")
            continue
        if before:
            lines.append(f"removed {(before - after) / 1e9:.2f} GB of weights on {asked[ref]}")
        if after:
            lines.append(f"{after / 1e9:.2f} GB of weights on {asked[ref]} are left: not ours to remove")
    return lines


def _remove(cache: str) -> tuple[int, int]:
    """Bytes that mirrors took on the disk, before and after."""
    folder = mirrors(cache)
    before = _on_disk(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # there is something else in it, or nothing there
        folder.parent.rmdir()
    return before, _on_disk(folder)


def _on_disk(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
