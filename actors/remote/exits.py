"""Why Ray ended a process: callers hear the same of a crash and of a lack of memory, its table of processes knows."""

from typing import Any

import ray
from ray.core.generated import common_pb2 as _common
from ray.core.generated import gcs_pb2 as _gcs

common_pb2: Any = _common  # Ray's stubs lack what is in them
gcs_pb2: Any = _gcs


def memory_exits() -> dict[tuple[str, int], str]:
    """By node and pid why Ray ended a process as its machine's memory was full, in a few ms; {} without Ray."""
    try:
        state: Any = ray._private.state.state
        table: list[bytes] = state._connect_and_get_accessor().get_worker_table()
        kind: int = common_pb2.WorkerExitType.Value("NODE_OUT_OF_MEMORY")
        exits = [entry for entry in map(gcs_pb2.WorkerTableData.FromString, table) if entry.exit_type == kind]
        return {(e.worker_address.node_id.hex(), e.pid): memory_reason(e.exit_detail) for e in exits if not e.is_alive}
    except Exception:  # Ray's own, of several kinds: the reason is missed, and nothing else
        return {}


def memory_reason(detail: str) -> str:
    """Ray's text, which goes on for lines, in words: `its machine's memory was full (0.84GB used / 23.54GB limit)`."""
    _, found, rest = detail.partition(") was ")
    numbers = f" ({rest.split(' (')[0].splitlines()[0].strip()})" if found else ""
    return f"Ray ended it as its machine's memory was full{numbers}: end what else uses it, or use fewer replicas there"
