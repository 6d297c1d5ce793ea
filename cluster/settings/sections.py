"""The sections of a configuration: every key, its meaning and its default."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """Strict: an unknown key is an error, and nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSection(Section):
    """Which checkpoint. `path` is a folder, `demo`, or a hub id; `dtype` auto is the checkpoint's own. With `pull` a
    host without the folder gets the tensors of its actors from the host of `serve`, into the folder `cache`.
    """

    path: str = "demo"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    pull: bool = False
    cache: str = Field(default="~/.cache/eightwinds", min_length=1)


class ActorSection(Section):
    """Resources that Ray reserves for an actor, and the threads that it computes with (0: what its machine
    and model call for: all cores for the head, the experts of a machine share its cores, one for a small model).
    """

    num_cpus: float = Field(default=0.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    threads: int = Field(default=0, ge=0)


class HeadSection(ActorSection):
    """The head actor. `quantization` is how it holds the matrices of attention and of an untied output head
    (docs/quantization.md). A step runs as so many `micro_batches` in turns, 0: one or two, as is measured to be faster.
    The engine waits `grace_s` seconds for a head that restarts. A head that has work and does not answer a pulse for
    `hang_s` seconds is ended, and restarts.
    """

    quantization: Literal["none", "int8"] = "none"
    micro_batches: int = Field(default=0, ge=0, le=2)
    grace_s: float = Field(default=60.0, gt=0)
    hang_s: float = Field(default=30.0, gt=0)


class ExpertsSection(ActorSection):
    """The expert actors, at first `replicas` of each expert. `count` must be the checkpoint's. `quantization` is how
    they hold their matrices (docs/quantization.md): auto as they are stored, in 4 bits or in the model's dtype. A step
    fails after `grace_s` seconds without an answer from an expert.
    """

    quantization: Literal["auto", "none", "int8", "int4"] = "auto"
    count: int = Field(default=8, ge=1)
    replicas: int = Field(default=1, ge=1, le=64)
    grace_s: float = Field(default=60.0, gt=0)


class KvSection(Section):
    """The KV cache, in pages of `page_size` tokens: `memory_bytes` in all, or `memory_share` of what is free on the
    head's device once its weights are loaded; with neither, a quarter of it (on a GPU four fifths), and no more than
    `scheduler.max_running_requests` whole contexts take. With `prefix_caching` a prompt's beginning that is in the
    cache is not computed again. `prefix_sharing` all lets callers with different tokens share pages, and so learn from
    the time to the first token what others have asked.
    """

    memory_bytes: int | None = Field(default=None, gt=0)
    memory_share: float | None = Field(default=None, gt=0, lt=1)
    page_size: int = Field(default=16, ge=1, le=1024)
    prefix_caching: bool = True
    prefix_sharing: Literal["tenant", "all"] = "tenant"

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if self.memory_share is not None and self.memory_bytes is not None:
            raise ValueError("set kv.memory_bytes or kv.memory_share, not both")
        return self


class SchedulerSection(Section):
    """Bounds of a step. Prefill that shares a step with decodes may make it `prefill_slowdown` times as long, and
    more where many wait for their first token. The size of a step of prompts alone follows from what steps cost, up to
    `max_tokens_per_step`.
    """

    max_running_requests: int = Field(default=64, ge=1, le=4096)
    max_tokens_per_step: int = Field(default=2048, ge=1)
    prefill_slowdown: float = Field(default=1.5, gt=1)


class GatewaySection(Section):
    """The public ports, and what may wait there: `max_queued_requests` outputs with together `max_queued_tokens` tokens
    of prompt. A request of which a client leaves more than `max_buffered_tokens` unread fails. On shutdown running
    requests get `grace_s` seconds to finish. Pages of the `cors_origins`, separated by commas, may ask over HTTP;
    requests may call the model by one of the `model_aliases`, separated likewise.
    """

    listen: str = "127.0.0.1:50051"
    http: str = "127.0.0.1:8000"
    max_queued_requests: int = Field(default=256, ge=1)
    max_queued_tokens: int = Field(default=1 << 20, ge=1)
    max_buffered_tokens: int = Field(default=4096, ge=1)
    max_message_bytes: int = Field(default=4 << 20, ge=1024)
    grace_s: float = Field(default=30.0, ge=0)
    cors_origins: str = ""
    model_aliases: str = ""

    @field_validator("listen", "http")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError("must be HOST:PORT, for example 127.0.0.1:50051")
        return value


class ClusterSection(Section):
    """The Ray cluster: `ray_address` empty starts a local one; `start_timeout_s` bounds the whole start."""

    namespace: str = Field(default="eightwinds", min_length=1, max_length=64)
    ray_address: str = ""
    start_timeout_s: float = Field(default=600.0, gt=0)


class ScalingSection(Section):
    """Scaling by utilization (see `cluster.policy.replicas.scaling`). A new replica that finds no node within
    `placement_timeout_s` is given up; an autoscaler of nodes may have to bring one meanwhile.
    """

    placement_timeout_s: float = Field(default=120.0, gt=0)
    enabled: bool = False
    min_replica_count: int = 1
    max_replica_count: int = 4
    max_total_replica_count: int = 16
    scale_up_utilization: float = 0.7
    scale_down_utilization: float = 0.2
    cooldown_s: float = 30.0


class SecuritySection(Section):
    """`token_file` holds the hashes of the bearer tokens that callers need (`eightwinds token`); without one everybody
    may call. With `certificate` and `key`, files in PEM, both ports speak TLS, and with `client_ca` only to clients
    with a certificate of that authority. `insecure` allows listening beyond loopback without TLS or without tokens.
    """

    token_file: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    insecure: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.certificate) != bool(self.key) or (self.client_ca and not self.key):
            raise ValueError("TLS needs security.certificate and security.key; security.client_ca may be added to them")
        return self


class LimitsSection(Section):
    """Bounds on what a caller may cost before it is authenticated, on gRPC and HTTP; docs/limits.md gives the reasons.
    `connections` of gRPC with `streams` calls on each and `calls` on all; `header_bytes` of a call's or request's head;
    `settings_s` for a connection's first words, and it is closed after `idle_s` without a call; a client may ping every
    `ping_interval_s`. `uploads` messages come in at once, each within `upload_s`, of at most `message_fields` fields.
    `watches` of health, and as many of load. HTTP has `http_connections`, `http_head_s` for a whole request, and
    `http_unread_s` in which nothing of an answer is taken.
    Of each tenant `examinations` may wait (tokenizing, schemas), of all `examination_bytes`, for `examination_s`; a
    long one may take `examination_cpu_s` of a core and `examination_memory_bytes`.
    """

    connections: int = Field(default=256, ge=1)
    streams: int = Field(default=1024, ge=1)
    calls: int = Field(default=1024, ge=1)
    header_bytes: int = Field(default=16 << 10, ge=4096)
    settings_s: float = Field(default=5.0, gt=0)
    idle_s: float = Field(default=300.0, gt=0)
    ping_interval_s: float = Field(default=1.0, ge=0)
    uploads: int = Field(default=32, ge=1)
    upload_s: float = Field(default=30.0, gt=0)
    message_fields: int = Field(default=100_000, ge=1000)
    watches: int = Field(default=128, ge=1)
    http_connections: int = Field(default=1024, ge=1)
    http_head_s: float = Field(default=10.0, gt=0)
    http_unread_s: float = Field(default=10.0, gt=0)
    examinations: int = Field(default=16, ge=1)
    examination_bytes: int = Field(default=64 << 20, ge=1)
    examination_s: float = Field(default=20.0, gt=0)
    examination_cpu_s: float = Field(default=10.0, gt=0)
    examination_memory_bytes: int = Field(default=512 << 20, ge=64 << 20)
