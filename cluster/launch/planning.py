"""`eightwinds plan`: a checkpoint on machines that are described, or that a running cluster has."""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cluster.launch.checks import open_model
from cluster.launch.inspection import size_words
from cluster.launch.specs import actor_bytes, default_kv, served_dtype
from cluster.policy.sizing import ModelSize, Room, Sizing, Tenancy, size_up
from cluster.settings.config import Config
from model.checkpoint.folder import dtype_bytes

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)\s*([KMGT]i?|)B?")
_GPU_READS, _CPU_READS = 300e9, 40e9  # bytes a second: an L4; two channels of DDR5


@dataclass(frozen=True, slots=True)
class Given:
    """The machines, in words: sizes such as 24GiB or 4x24GiB; what a link carries in a second in bits, and what a GPU
    or a CPU reads in a second in bytes ("": as an L4, or two channels of DDR5).
    """

    gpus: tuple[str, ...] = ()
    memories: tuple[str, ...] = ()
    link: str = "10Gb"
    gpu_reads: str = ""
    cpu_reads: str = ""
    batch: int = 32

    def rooms(self) -> list[Room]:
        """ValueError for a size that is none, or without any machine."""
        gpu_reads, cpu_reads = (
            parse_size(text)[1] if text else usual
            for text, usual in ((self.gpu_reads, _GPU_READS), (self.cpu_reads, _CPU_READS))
        )
        kinds = [("gpu", text, True, gpu_reads) for text in self.gpus]
        kinds += [("host", text, False, cpu_reads) for text in self.memories]
        rooms = list[Room]()
        for kind, text, gpu, reads in kinds:
            count, size = parse_size(text)
            before = sum(room.gpu == gpu for room in rooms)
            rooms += [Room(f"{kind} {before + n + 1}", size, gpu, reads) for n in range(count)]
        if not rooms:
            raise ValueError(
                "say which machines: --gpu-memory 4x24GiB, --memory 64GiB, or --address of a running server"
            )
        return rooms

    @property
    def link_bytes(self) -> float:
        return parse_size(self.link.removesuffix("/s").removesuffix("b"))[1] / 8


def parse_size(text: str) -> tuple[int, int]:
    """How many, and how large: 4x24GiB. ValueError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not float(found[2]):
        raise ValueError(f"{text!r} is no size: write 24GiB, 64GB, or 4x24GiB for four of them")
    return int(found[1] or 1), round(float(found[2]) * _UNITS[found[3]])


def model_size(config: Config) -> ModelSize:
    """Of the configured checkpoint. ValueError if it cannot be served."""
    checkpoint = open_model(config).checkpoint
    model, number = checkpoint.config, dtype_bytes(served_dtype(config, checkpoint))
    head, expert = actor_bytes(config, checkpoint)
    kv_token = model.kv_token_bytes(number)
    most = default_kv(config, checkpoint)[0] or 1 << 62  # none where the cache has a size of its own
    return ModelSize(
        layers=model.num_hidden_layers,
        experts=model.num_local_experts,
        experts_per_token=model.num_experts_per_tok,
        context=min(model.max_position_embeddings, max(1, most // kv_token)),
        head=head,
        expert=expert,
        kv_token=kv_token,
        kv_most=most,
        row=model.hidden_size * number,
        kv_fixed=config.kv.memory_bytes or 0,
    )


def run(config: Config, given: Given, as_json: bool) -> int:
    """Print it; 0 if all of it fits. ValueError if something given is wrong."""
    sizing = size_up(model_size(config), given.rooms(), config.experts.replicas, config.kv.memory_share)
    if as_json:
        steps = {"sent_bytes": sizing.sent(given.batch), "read_seconds": sizing.read_seconds(given.batch)}
        content = asdict(sizing) | {"kv_tokens": sizing.kv_tokens, "shortage": sizing.shortage(), "step": steps}
        print(json.dumps(content, indent=2))
    else:
        print("\n".join(_lines(sizing, given)))
    return 1 if sizing.lacking else 0


def _lines(sizing: Sizing, given: Given) -> Iterator[str]:
    model = sizing.model
    held = f"head {size_words(model.head)}, each expert {size_words(model.expert)}"
    yield f"weights   {held}; a KV token {model.kv_token:,} bytes"
    for tenancy in sizing.rooms:
        yield f"{tenancy.room.name:8}  {size_words(tenancy.room.size):>9}  {_holds(sizing, tenancy)}"
    if sizing.lacking:
        names = ["the head" if who is None else f"expert {who}" for who in sizing.lacking]
        yield f"does not fit: {size_words(sizing.shortage())} more are needed, for {', '.join(names)}"
        return
    yield f"KV cache  {sizing.kv_tokens:,} tokens"
    reads, sent = sizing.read_seconds(given.batch), sizing.sent(given.batch)
    link = sent / given.link_bytes
    bound = "the link" if link > reads else "reading weights"
    yield (
        f"a step    of {given.batch} decodes reads weights for {1000 * reads:.2f} ms, and sends {size_words(sent)} "
        f"between machines, {1000 * link:.2f} ms at {given.link}/s: {bound} bounds it"
    )
    if settings := _settings(sizing):
        yield f"settings  {' '.join(settings)}"


def _holds(sizing: Sizing, tenancy: Tenancy) -> str:
    parts = [f"head, KV cache of {size_words(sizing.kv)}"] if tenancy.head else []
    if tenancy.experts:
        parts.append(f"expert{'s' if len(tenancy.experts) > 1 else ''} {', '.join(map(str, sorted(tenancy.experts)))}")
    used = tenancy.used + (sizing.kv if tenancy.head else 0)
    return f"{'; '.join(parts) or 'nothing'}: {size_words(used)} of {size_words(tenancy.room.usable)} usable"


def _settings(sizing: Sizing) -> list[str]:
    """Shares of GPUs that let Ray place the actors as here; none where some sit on CPUs, as all experts ask alike."""
    used = [tenancy for tenancy in sizing.rooms if tenancy.head or tenancy.experts]
    if not all(tenancy.room.gpu for tenancy in used):
        return []
    most = max(len(tenancy.experts) + (tenancy.head and bool(tenancy.experts)) for tenancy in used)
    share = math.floor(100 / most) / 100
    beside = sum(len(tenancy.experts) for tenancy in used if tenancy.head)
    return [f"--set head.num_gpus={1 - beside * share:.2g}", f"--set experts.num_gpus={share:g}"]
