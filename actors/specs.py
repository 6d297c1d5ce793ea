"""Plain data of which actors are built, and their reports of what they hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """The parameters of an actor. `expert` is None for the head; `threads` is how many its process computes with, 0 for
    what its machine allows; `transport` is how rows travel between head and experts, `quantization` the form of the
    actor's matrices (model/matrices/forms.py).

    Only the head has `micro_batches` (actors/micro_batches.py) and a KV cache, in pages of `page_size` tokens.
    `kv_memory_share` is of the free memory, at most `kv_memory_most` (0: any), and goes before `kv_memory_bytes` unless
    it is 0. `digest` is the checkpoint's, `code` that of this project's files. Running actors of an equal spec can be
    adopted, others are replaced. Where the folder is not, weights come into `cache`, unless it is "".
    """

    folder: str
    dtype: str
    device: str
    threads: int
    expert: int | None = None
    kv_memory_bytes: int = 0
    kv_memory_share: float = 0.0
    kv_memory_most: int = 0
    page_size: int = 0
    transport: str = ""
    micro_batches: int = 0
    quantization: str = "none"
    digest: str = ""
    code: str = ""
    cache: str = ""


def kv_bytes(spec: ActorSpec, free: int) -> int:
    """Bytes of the KV cache of this head, when so many are free once the weights are loaded."""
    if not spec.kv_memory_share:
        return spec.kv_memory_bytes
    share = int(spec.kv_memory_share * free)
    return min(share, spec.kv_memory_most) if spec.kv_memory_most else share


@dataclass(frozen=True, slots=True)
class ActorReport:
    """A process and its weights: `tensors` gives the stored bytes by tensor name."""

    pid: int
    node_id: str
    spec: ActorSpec
    weight_bytes: int
    tensors: Mapping[str, int] = field(default_factory=dict)
