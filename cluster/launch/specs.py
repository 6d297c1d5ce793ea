"""What each part of a server is built from: the only place where keys of the configuration become options of a part."""

from actors.specs import ActorSpec
from cluster.engine.engine import EngineConfig
from cluster.launch.code_digest import code_digest
from cluster.policy.replicas.lifecycle import ReplicaOptions
from cluster.policy.replicas.scaling import ScalingPolicy
from cluster.policy.scheduling.limits import Limits
from cluster.settings.config import ActorSection, Config
from model.checkpoint.folder import Checkpoint, dtype_bytes

# Of what is free once the weights are loaded, for the KV cache. Beside a head on a CPU live experts and other programs.
_CPU_SHARE, _GPU_SHARE = 0.25, 0.8


def actor_specs(config: Config, checkpoint: Checkpoint) -> tuple[ActorSpec, list[ActorSpec]]:
    """What head and experts are built from."""
    dtype = checkpoint.config.dtype if config.model.dtype == "auto" else config.model.dtype
    code = code_digest()
    most, share = _default_kv(config, checkpoint, dtype)
    head = ActorSpec(
        folder=str(checkpoint.folder),
        dtype=dtype,
        device="cuda" if config.head.num_gpus else "cpu",
        threads=config.head.threads,
        kv_memory_bytes=config.kv.memory_bytes or 0,
        kv_memory_share=config.kv.memory_share or share,
        kv_memory_most=most,
        page_size=config.kv.page_size,
        transport=config.transport,
        digest=checkpoint.digest,
        code=code,
    )
    experts = [
        ActorSpec(
            folder=str(checkpoint.folder),
            dtype=dtype,
            device="cuda" if config.experts.num_gpus else "cpu",
            threads=config.experts.threads,
            expert=expert,
            transport=config.transport,
            digest=checkpoint.digest,
            code=code,
        )
        for expert in range(checkpoint.config.num_local_experts)
    ]
    return head, experts


def _default_kv(config: Config, checkpoint: Checkpoint, dtype: str) -> tuple[int, float]:
    """Unless the configuration has a size for the KV cache: the most bytes that it could use, and its share of free
    memory.
    """
    kv, scheduler, model = config.kv, config.scheduler, checkpoint.config
    if kv.memory_bytes is not None or kv.memory_share is not None:
        return 0, 0.0
    limits = Limits(
        scheduler.max_running_requests, scheduler.max_tokens_per_step, 0, kv.page_size, model.sliding_window
    )
    pages = scheduler.max_running_requests * limits.pages_of(model.max_position_embeddings)
    most = pages * kv.page_size * model.kv_token_bytes(dtype_bytes(dtype))
    return most, _GPU_SHARE if config.head.num_gpus else _CPU_SHARE


def needs_of(section: ActorSection) -> dict[str, float]:
    """What Ray reserves for such an actor, by resource."""
    needs = {"CPU": section.num_cpus, "GPU": section.num_gpus} | section.resources
    return {name: amount for name, amount in needs.items() if amount}


def engine_config(config: Config, window: int | None) -> EngineConfig:
    """The engine's bounds for a model with this sliding window."""
    return EngineConfig(
        max_running=config.scheduler.max_running_requests,
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_queued=config.gateway.max_queued_requests,
        max_queued_tokens=config.gateway.max_queued_tokens,
        window=window,
        head_grace=config.head.grace_s,
        prefill_slowdown=config.scheduler.prefill_slowdown,
        prefix_caching=config.kv.prefix_caching,
        prefixes_by_tenant=config.kv.prefix_sharing == "tenant",
    )


def replica_options(config: Config) -> ReplicaOptions:
    """How long the controller waits for replicas, and what one needs."""
    return ReplicaOptions(
        placement_timeout=config.scaling.placement_timeout_s,
        start_timeout=config.cluster.start_timeout_s,
        needs=needs_of(config.experts),
    )


def scaling_policy(config: Config) -> ScalingPolicy:
    """The policy that a server begins with; ValueError names what is wrong with it."""
    s = config.scaling
    policy = ScalingPolicy(
        s.enabled,
        s.min_replica_count,
        s.max_replica_count,
        s.max_total_replica_count,
        s.scale_up_utilization,
        s.scale_down_utilization,
        s.cooldown_s,
    )
    if s.enabled and (problems := policy.problems(config.experts.count)):
        raise ValueError("; ".join(f"scaling.{field}: {why}" for field, why in problems))
    return policy
