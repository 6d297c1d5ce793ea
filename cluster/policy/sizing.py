"""Whether a model fits on machines, where each actor sits, and what a step then sends and reads: by sizes alone, before
anything runs. Numbers are bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Measured as memory of its own (USS) of a process with torch and Ray on a CPU, before its weights.
HEAD_BYTES, EXPERT_BYTES = 210 << 20, 200 << 20
LIBRARIES_BYTES = 320 << 20  # torch, Ray and Python, once on a machine for all its processes
RAY_BYTES = 500 << 20  # Ray's own processes on a machine
DEVICE_BYTES = 500 << 20  # of a process on a GPU: CUDA and its libraries

RAY_THRESHOLD = 0.95  # share of a machine's memory above which Ray ends its processes
# Of what is free once the weights are loaded, for the KV cache. Beside a head on a CPU live experts and other programs.
CPU_KV_SHARE, GPU_KV_SHARE = 0.25, 0.8


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A checkpoint as it is served: weights of the head and of one expert, and what a token takes in the KV cache and
    as a row between head and expert. `kv_most` is all that the KV cache could use; `kv_fixed` is its size where it is
    configured, else 0.
    """

    layers: int
    experts: int
    experts_per_token: int
    context: int
    head: int
    expert: int
    kv_token: int
    kv_most: int
    row: int
    kv_fixed: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """A GPU, or the memory of a machine whose actors run on the CPU. `reads` is how many bytes a second it reads."""

    name: str
    size: int
    gpu: bool
    reads: float

    @property
    def usable(self) -> int:
        """Without what Ray, or the driver of a GPU, keeps free."""
        return max(0, round(RAY_THRESHOLD * self.size) - (0 if self.gpu else LIBRARIES_BYTES + RAY_BYTES))

    def process(self, head: bool) -> int:
        """Memory that a process takes there before its weights."""
        return DEVICE_BYTES if self.gpu else HEAD_BYTES if head else EXPERT_BYTES


@dataclass(slots=True)
class Tenancy:
    """The actors of a room; `used` counts all but the KV cache."""

    room: Room
    used: int = 0
    head: bool = False
    experts: tuple[int, ...] = ()

    @property
    def left(self) -> int:
        return self.room.usable - self.used


@dataclass(frozen=True, slots=True)
class Sizing:
    """`lacking` are replicas that found no room, by expert, and the head as None."""

    model: ModelSize
    rooms: tuple[Tenancy, ...]
    kv: int
    lacking: tuple[int | None, ...]

    @property
    def kv_tokens(self) -> int:
        return self.kv // self.model.kv_token

    @property
    def head_room(self) -> Tenancy | None:
        return next((tenancy for tenancy in self.rooms if tenancy.head), None)

    def sent(self, tokens: int) -> int:
        """Bytes between rooms in a step of so many tokens, there and back, when load is even."""
        there, model = self.head_room, self.model
        placed = [expert for tenancy in self.rooms for expert in tenancy.experts]
        if there is None or not placed:
            return 0
        away = 1 - len(there.experts) / len(placed)
        return round(2 * tokens * model.experts_per_token * model.row * model.layers * away)

    def read_seconds(self, tokens: int) -> float:
        """How long a step of so many decodes reads weights: the head, then in each layer the slowest room. Every expert
        that gets a token is read whole.
        """
        there, model = self.head_room, self.model
        if there is None:
            return 0.0
        active = model.experts * (1 - (1 - model.experts_per_token / model.experts) ** tokens)
        slowest = max(len(set(t.experts)) * active / model.experts * model.expert / t.room.reads for t in self.rooms)
        return model.head / there.room.reads + slowest

    def shortage(self) -> int:
        """How much more memory what is lacking would take, all together."""
        process = max(tenancy.room.process(True) for tenancy in self.rooms)
        return sum((self.model.head if who is None else self.model.expert) + process for who in self.lacking)


def size_up(model: ModelSize, rooms: Sequence[Room], replicas: int = 1, kv_share: float | None = None) -> Sizing:
    """The head goes where most room is, on a GPU if there is one, with room for a whole context; each expert's replicas
    go to the rooms with most left, apart from each other. The KV cache gets its share of what is left beside the head
    (`kv_share`; else a quarter, on a GPU four fifths).
    """
    there = [Tenancy(room) for room in rooms]
    lacking: list[int | None] = []
    kv_least = model.kv_fixed or model.context * model.kv_token
    home = max(there, key=lambda t: (t.room.gpu, t.left))
    need = model.head + home.room.process(head=True)
    if home.left >= need + kv_least:
        home.head, home.used = True, home.used + need
    else:
        lacking.append(None)
    for _ in range(replicas):
        for expert in range(model.experts):
            fitting = [t for t in there if _left(t, kv_least) >= model.expert + t.room.process(head=False)]
            if not fitting:
                lacking.append(expert)
                continue
            chosen = min(fitting, key=lambda t: _reluctance(t, expert, kv_least))
            chosen.used += model.expert + chosen.room.process(head=False)
            chosen.experts += (expert,)
    kv = 0
    if home.head:
        share = kv_share or (GPU_KV_SHARE if home.room.gpu else CPU_KV_SHARE)
        kv = model.kv_fixed or min(model.kv_most, max(kv_least, round(share * home.left)))
    return Sizing(model, tuple(there), kv, tuple(lacking))


def _reluctance(tenancy: Tenancy, expert: int, kv_least: int) -> tuple[bool, bool, float]:
    """A room with the same expert comes last; the head's GPU late, because the KV cache wants what is left there."""
    crowd = tenancy.head and tenancy.room.gpu
    return expert in tenancy.experts, crowd, -_left(tenancy, kv_least) / tenancy.room.usable


def _left(tenancy: Tenancy, kv_least: int) -> int:
    return tenancy.left - (kv_least if tenancy.head else 0)
