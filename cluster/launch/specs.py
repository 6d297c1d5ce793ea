"""The options of each part of a server: the only place where they are made of the keys of the configuration."""

import functools
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from actors.specs import ActorSpec
from cluster.engine.engine import EngineConfig
from cluster.policy.replicas.lifecycle import ReplicaOptions
from cluster.policy.replicas.scaling import ScalingPolicy
from cluster.policy.scheduling.limits import Limits, QueueBounds
from cluster.policy.sizing import CPU_KV_SHARE, EXPERT_BYTES, GPU_KV_SHARE, HEAD_BYTES
from cluster.settings.config import Config
from cluster.settings.sections import ActorSection
from model.checkpoint.folder import Checkpoint, dtype_bytes
from model.config import INT4_GROUPS

_INT8_BYTES = 1.01  # of a number, scales included
_EXPERTS, _HEAD_MATRICES = (".experts.",), (".self_attn.", "lm_head.")  # tensors by parts of their names
_CHUNK = 512  # tokens that a context counts beside its window: not all of them run a whole step's prefill at once
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("actors", "model")


def actor_specs(config: Config, checkpoint: Checkpoint) -> tuple[ActorSpec, list[ActorSpec]]:
    spec = functools.partial(
        ActorSpec,
        folder=str(checkpoint.folder),
        dtype=served_dtype(config, checkpoint),
        transport=config.transport,
        digest=checkpoint.digest,
        code=code_digest(),
        cache=config.model.cache if config.model.pull else "",
    )
    most, share = default_kv(config, checkpoint)
    head = spec(
        device="cuda" if config.head.num_gpus else "cpu",
        threads=config.head.threads,
        kv_memory_bytes=config.kv.memory_bytes or 0,
        kv_memory_share=config.kv.memory_share or share,
        kv_memory_most=most,
        page_size=config.kv.page_size,
        quantization=config.head.quantization,
        micro_batches=config.head.micro_batches,
    )
    device = "cuda" if config.experts.num_gpus else "cpu"
    count = checkpoint.config.num_local_experts
    form = experts_form(config, checkpoint)
    expert = functools.partial(spec, device=device, threads=config.experts.threads, quantization=form)
    return head, [expert(expert=number) for number in range(count)]


def code_digest(root: Path = _ROOT) -> str:
    """Of every source file that runs in an actor, because an earlier server's actors may run other code."""
    digest = hashlib.sha256()
    for file in sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def served_dtype(config: Config, checkpoint: Checkpoint) -> str:
    return checkpoint.config.dtype if config.model.dtype == "auto" else config.model.dtype


def experts_form(config: Config, checkpoint: Checkpoint) -> str:
    """The form in which experts hold their matrices. By `auto` weights in 4 bits stay what they are: ValueError where
    they cannot, because unpacked they would need a multiple of the memory that their folder lets one expect.
    """
    form, packing = config.experts.quantization, checkpoint.packing
    if form != "auto":
        return form
    if packing is None or not any(checkpoint.tensors[name].packing for name in checkpoint.expert_names(0)):
        return "none"
    if not config.experts.num_gpus and checkpoint.int4_group:
        return "int4"
    sizes = [f"{form} ({_held(config, checkpoint, form) / 1e9:.1f} GB in all)" for form in ("int8", "none")]
    why = "a GPU" if config.experts.num_gpus else f"groups of {packing.group or 'all'} inputs (group_size)"
    raise ValueError(
        f"{checkpoint.folder / 'config.json'}: quantization_config says that weights have 4 bits, but there is no "
        f"4-bit product for {why}: set experts.quantization to {' or '.join(sizes)}"
    )


def held_bytes(config: Config, checkpoint: Checkpoint) -> int:
    """Of all weights as they are served, in all processes together, with one replica of each expert. ValueError as
    `experts_form`.
    """
    return _held(config, checkpoint, experts_form(config, checkpoint))


def actor_bytes(config: Config, checkpoint: Checkpoint) -> tuple[int, int]:
    """Of the weights that the head holds, and of those of one expert. ValueError as `experts_form`."""
    form = experts_form(config, checkpoint)
    head, expert = checkpoint.head_names(), checkpoint.expert_names(0)
    return _held(config, checkpoint, form, head), _held(config, checkpoint, form, expert)


def _held(config: Config, checkpoint: Checkpoint, experts_form: str, tensors: Collection[str] | None = None) -> int:
    """Of these tensors, or of all."""
    dtype, chosen = served_dtype(config, checkpoint), checkpoint.tensors if tensors is None else tensors
    held = checkpoint.held_bytes(dtype, chosen)
    for names, form in ((_EXPERTS, experts_form), (_HEAD_MATRICES, config.head.quantization)):
        if form != "none":
            own = checkpoint.held_bytes(dtype, [n for n in chosen if any(name in n for name in names)])
            held += round(own / dtype_bytes(dtype) * _number_bytes(form, checkpoint)) - own
    return held


def _number_bytes(form: str, checkpoint: Checkpoint) -> float:
    """Of a weight, scales included. A group of 4-bit integers has two numbers of 16 bits."""
    return 0.5 + 4 / (checkpoint.int4_group or min(INT4_GROUPS)) if form == "int4" else _INT8_BYTES


def default_kv(config: Config, checkpoint: Checkpoint) -> tuple[int, float]:
    """Unless the KV cache has a size: the most bytes that it could use, and its share of free memory."""
    kv, model = config.kv, checkpoint.config
    if kv.memory_bytes is not None or kv.memory_share is not None:
        return 0, 0.0
    limits = _limits(config, model.sliding_window)
    limits = replace(limits, max_tokens_per_step=min(limits.max_tokens_per_step, _CHUNK))
    pages = limits.max_running * limits.pages_of(model.max_position_embeddings)
    most = pages * kv.page_size * model.kv_token_bytes(dtype_bytes(served_dtype(config, checkpoint)))
    return most, GPU_KV_SHARE if config.head.num_gpus else CPU_KV_SHARE


def needs(config: Config, checkpoint: Checkpoint) -> tuple[dict[str, float], dict[str, float]]:
    """The amounts that Ray reserves by resource: for the head, and for a replica. Memory is what its process holds
    without a KV cache that follows what is free; a configured amount of `memory` goes first.
    """
    head, expert = actor_bytes(config, checkpoint)
    head += config.kv.memory_bytes or 0
    return _needs(config.head, head, HEAD_BYTES), _needs(config.experts, expert, EXPERT_BYTES)


def _needs(section: ActorSection, weights: int, process: int) -> dict[str, float]:
    memory = process + (0 if section.num_gpus else weights)
    found = {"CPU": section.num_cpus, "GPU": section.num_gpus, "memory": memory} | section.resources
    return {name: amount for name, amount in found.items() if amount}


def engine_config(config: Config, window: int | None) -> EngineConfig:
    return EngineConfig(
        limits=_limits(config, window),
        queue=QueueBounds(config.gateway.max_queued_requests, config.gateway.max_queued_tokens),
        head_grace=config.head.grace_s,
        prefill_slowdown=config.scheduler.prefill_slowdown,
        prefixes_by_tenant=config.kv.prefix_sharing == "tenant",
        plan_ahead=config.runtime == "ray",
    )


def _limits(config: Config, window: int | None) -> Limits:
    s, kv = config.scheduler, config.kv
    return Limits(s.max_running_requests, s.max_tokens_per_step, 0, kv.page_size, window, kv.prefix_caching)


def replica_options(config: Config, needs: Mapping[str, float]) -> ReplicaOptions:
    return ReplicaOptions(
        placement_timeout=config.scaling.placement_timeout_s,
        start_timeout=config.cluster.start_timeout_s,
        needs=needs,
    )


def scaling_policy(config: Config) -> ScalingPolicy:
    """The policy that a server begins with; ValueError names what is wrong with it."""
    section = config.scaling
    names_alike = section.model_dump(exclude={"placement_timeout_s", "cooldown_s"})
    policy = ScalingPolicy(**names_alike, cooldown=section.cooldown_s)
    if policy.enabled and (problems := policy.problems(config.experts.count)):
        raise ValueError("; ".join(f"scaling.{field}: {why}" for field, why in problems))
    return policy
