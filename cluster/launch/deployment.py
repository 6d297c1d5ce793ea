"""What a launch hands to `serve`: a head to drive, and how to let go of it. No Ray, no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actors.replica import ReplicaId
from actors.seams import ClusterOps, HeadHandle
from actors.specs import ActorSpec
from actors.vitals import Pulse
from cluster.launch.code_digest import code_digest
from cluster.policy.scheduling.limits import Limits
from cluster.settings.address import is_loopback
from cluster.settings.config import ActorSection, Config
from model.batch import LoadProgress
from model.checkpoint.folder import Checkpoint, dtype_bytes

# Of what is free once the weights are loaded, for the KV cache. Beside a head on a CPU live experts and other programs.
_CPU_SHARE, _GPU_SHARE = 0.25, 0.8

ProgressReport = Callable[[str, Mapping[str, LoadProgress]], None]  # (phase, progress by actor)


class LaunchFailed(Exception):
    """The start failed; the text is for the operator."""


class LaunchStopped(Exception):
    """The start was interrupted."""


@dataclass(slots=True)
class Deployment:
    """Running actors. `close(keep)` lets go of them: they end, unless they are to be kept. `ops` changes the experts'
    replicas, and `pulses` has those that run; without `ops` they cannot be changed. `broken` says what is gone that
    nothing brings back, "" if nothing is.
    """

    head: HeadHandle
    close: Callable[[bool], None]
    ops: ClusterOps | None = None
    pulses: Mapping[ReplicaId, Pulse] = field(default_factory=dict)
    broken: Callable[[], str] = lambda: ""


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


def check_fits(config: Config, checkpoint: Checkpoint) -> None:
    """ValueError unless the cluster is configured for this checkpoint's number of experts."""
    count = checkpoint.config.num_local_experts
    if count != config.experts.count:
        raise ValueError(
            f"the checkpoint has {count} experts, the cluster is configured for {config.experts.count}: "
            f"set experts.count={count}"
        )


def check_exposure(config: Config) -> None:
    """ValueError if other machines could send requests and nothing asks who they are."""
    for address in (config.gateway.listen, config.gateway.http):
        if not (is_loopback(address) or config.security.token_file or config.security.insecure):
            raise ValueError(
                f"{address} can be reached from other machines, and anybody there could send requests: give a "
                "--token-file, listen on 127.0.0.1, or say --insecure if the network is yours"
            )
