"""What actors are built from: the size of the KV cache, given and by default, and what doctor counts of it."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from actors.specs import ActorSpec, kv_bytes
from cluster.launch import checks
from cluster.launch.specs import (
    actor_bytes,
    actor_specs,
    code_digest,
    engine_config,
    held_bytes,
    needs,
    replica_options,
    scaling_policy,
)
from cluster.policy.sizing import EXPERT_BYTES, HEAD_BYTES
from cluster.settings.config import Config, load_config
from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import Tensors
from model.experts.loading import load_expert
from model.matrices.forms import MATRICES
from model.trunk import Trunk
from tests.checkpoints import tiny, write
from tests.packed_checkpoints import Way, write_packed

TOKEN = 2 * 2 * 2 * 8 * 4  # keys and values, layers, KV heads, head_dim, bytes of fp32


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(write(tmp_path, tiny()))


def head(checkpoint: Checkpoint, *settings: str) -> ActorSpec:
    return actor_specs(load_config(None, {}, settings), checkpoint)[0]


def test_by_default_the_cache_follows_free_memory_up_to_what_could_be_used(checkpoint: Checkpoint) -> None:
    spec = head(checkpoint, "scheduler.max_running_requests=3")
    assert kv_bytes(spec, 1 << 18) == 1 << 16, "a quarter"
    assert kv_bytes(spec, 1 << 40) == 3 * 256 * TOKEN, "three whole contexts"
    assert kv_bytes(head(checkpoint, "head.num_gpus=1"), 1000) == 800


def test_under_a_window_a_context_counts_with_a_chunk_and_not_with_a_step(tmp_path: Path) -> None:
    windowed = Checkpoint.open(write(tmp_path, tiny(sliding_window=32, max_position_embeddings=4096)))
    spec = head(windowed, "scheduler.max_running_requests=3")
    assert kv_bytes(spec, 1 << 40) == 3 * (32 + 512 + 16) * TOKEN


def test_what_is_set_counts(checkpoint: Checkpoint) -> None:
    assert kv_bytes(head(checkpoint, "kv.memory_bytes=12345"), 1 << 40) == 12345
    assert kv_bytes(head(checkpoint, "kv.memory_share=0.5"), 1 << 40) == 1 << 39


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_doctor_counts_what_would_be_held(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what is stored, which is float32 here."""
    folder = write(tmp_path, tiny(hidden_size=256, intermediate_size=512))
    settings = ["runtime=in_process", f"model.path={folder}", f"model.dtype={dtype}", "kv.memory_bytes=4096"]
    config, checkpoint = load_config(None, {}, settings), Checkpoint.open(folder)
    monkeypatch.setattr(checks, "ACTOR_BYTES", 0)
    held = checkpoint.held_bytes(dtype)
    assert checks.memory_needed(config, held) == held + 4096
    assert held == held_bytes(config, checkpoint)
    assert held == checkpoint.nbytes(list(checkpoint.tensors)) // (1 if dtype == "float32" else 2)


@pytest.mark.parametrize(("quantization", "head"), [("int8", "none"), ("int4", "none"), ("none", "int8")])
def test_quantized_matrices_are_counted_as_they_are_held(quantization: str, head: str, tmp_path: Path) -> None:
    folder = write(tmp_path, tiny(hidden_size=256, intermediate_size=128, num_attention_heads=32, vocab_size=2000))
    checkpoint = Checkpoint.open(folder)
    settings = [f"model.path={folder}", "model.dtype=bfloat16", f"experts.quantization={quantization}"]
    settings.append(f"head.quantization={head}")
    expert = load_expert(checkpoint, 0, quantization, torch.bfloat16)
    trunk_tensors = Tensors(checkpoint, checkpoint.head_names(), torch.bfloat16)
    wanted = Trunk(checkpoint.config, trunk_tensors, MATRICES[head]).nbytes()
    wanted += expert.nbytes() * checkpoint.config.num_local_experts
    found = held_bytes(load_config(None, {}, settings), checkpoint)
    assert found == pytest.approx(wanted, rel=0.03)
    assert found < 0.9 * checkpoint.held_bytes("bfloat16")


@pytest.mark.parametrize("form", ["auto", "none", "int8", "int4"])
@pytest.mark.parametrize("way", [Way("awq", 128), Way("gptq", 32), Way("gptq", 0)], ids=lambda w: f"{w.group}")
def test_weights_of_four_bits_are_counted_as_they_are_held(form: str, way: Way, tmp_path: Path) -> None:
    write_packed(tmp_path, way)
    config, checkpoint = load_config(None, {}, [f"experts.quantization={form}"]), Checkpoint.open(tmp_path)
    head, experts = actor_specs(config, checkpoint)
    assert (head.quantization, head.dtype) == ("none", "float16")
    assert {expert.quantization for expert in experts} == {"int4" if form == "auto" else form}
    wanted = Trunk(checkpoint.config, Tensors(checkpoint, checkpoint.head_names(), torch.float16)).nbytes()
    for expert in experts:
        assert expert.expert is not None
        wanted += load_expert(checkpoint, expert.expert, expert.quantization, torch.float16).nbytes()
    assert held_bytes(config, checkpoint) == pytest.approx(wanted, rel=0.03)


def test_weights_of_four_bits_are_not_unpacked_unless_that_is_asked_for(tmp_path: Path) -> None:
    """They would take a multiple of the memory."""
    write_packed(tmp_path / "gpu", Way("awq", 128))
    write_packed(tmp_path / "groups", Way("awq", 16))
    for folder, key in (("gpu", "experts.num_gpus=1"), ("groups", "experts.num_gpus=0")):
        checkpoint = Checkpoint.open(tmp_path / folder)
        with pytest.raises(
            ValueError, match=r"config\.json: quantization_config says .* for (a GPU|groups of 16)"
        ) as told:
            actor_specs(load_config(None, {}, [key]), checkpoint)
        assert re.search(r"set experts\.quantization to int8 \(0\.\d GB in all\) or none \(0\.\d GB", str(told.value))
        for form in ("int8", "none"):
            _, experts = actor_specs(load_config(None, {}, [key, f"experts.quantization={form}"]), checkpoint)
            assert {expert.quantization for expert in experts} == {form}


def test_other_weights_are_held_as_they_are_unless_asked_otherwise(checkpoint: Checkpoint) -> None:
    _, experts = actor_specs(load_config(None, {}, []), checkpoint)
    assert {expert.quantization for expert in experts} == {"none"}


def test_head_and_experts_are_quantized_each_as_configured(tmp_path: Path) -> None:
    folder = write(tmp_path, tiny())
    settings = [f"model.path={folder}", "head.quantization=int8", "experts.quantization=int4"]
    head, experts = actor_specs(load_config(None, {}, settings), Checkpoint.open(folder))
    assert head.quantization == "int8" and {expert.quantization for expert in experts} == {"int4"}


@pytest.mark.parametrize(
    ("key", "text", "read"),
    [
        ("scheduler.max_running_requests", "3", lambda c: engine_config(c, None).limits.max_running),
        ("scheduler.max_tokens_per_step", "3", lambda c: engine_config(c, None).limits.max_tokens_per_step),
        ("scheduler.prefill_slowdown", "3", lambda c: engine_config(c, None).prefill_slowdown),
        ("gateway.max_queued_requests", "3", lambda c: engine_config(c, None).queue.sequences),
        ("gateway.max_queued_tokens", "3", lambda c: engine_config(c, None).queue.tokens),
        ("head.grace_s", "3", lambda c: engine_config(c, None).head_grace),
        ("scaling.placement_timeout_s", "3", lambda c: replica_options(c, {}).placement_timeout),
        ("cluster.start_timeout_s", "3", lambda c: replica_options(c, {}).start_timeout),
        ("scaling.min_replica_count", "3", lambda c: scaling_policy(c).min_replica_count),
        ("scaling.max_replica_count", "3", lambda c: scaling_policy(c).max_replica_count),
        ("scaling.max_total_replica_count", "3", lambda c: scaling_policy(c).max_total_replica_count),
        ("scaling.cooldown_s", "3", lambda c: scaling_policy(c).cooldown),
    ],
)
def test_a_key_reaches_the_part_that_it_is_of(key: str, text: str, read: Callable[[Config], object]) -> None:
    assert read(load_config(None, {}, [])) != 3
    assert read(load_config(None, {}, [f"{key}={text}"])) == 3


def test_ray_reserves_what_an_actor_holds(checkpoint: Checkpoint) -> None:
    config = load_config(None, {}, ["experts.num_cpus=3", "experts.resources={fast: 2}"])
    weights = actor_bytes(config, checkpoint)
    head, expert = needs(config, checkpoint)
    assert head == {"memory": HEAD_BYTES + weights[0]}
    assert expert == {"CPU": 3, "fast": 2, "memory": EXPERT_BYTES + weights[1]}
    cache, _ = needs(load_config(None, {}, ["kv.memory_bytes=1000000"]), checkpoint)
    assert cache["memory"] - head["memory"] == 1_000_000


def test_weights_on_a_gpu_are_not_in_the_machines_memory_and_a_configured_amount_goes_first(
    checkpoint: Checkpoint,
) -> None:
    _, gpu = needs(load_config(None, {}, ["experts.num_gpus=0.5"]), checkpoint)
    assert gpu == {"GPU": 0.5, "memory": EXPERT_BYTES}
    _, own = needs(load_config(None, {}, ["experts.resources={memory: 5000}"]), checkpoint)
    assert own == {"memory": 5000}
    _, none = needs(load_config(None, {}, ["experts.resources={memory: 0}"]), checkpoint)
    assert none == {}, "Ray may then place it anywhere"


def test_the_prefix_cache_is_shared_as_configured() -> None:
    assert engine_config(load_config(None, {}), None).prefixes_by_tenant
    assert not engine_config(load_config(None, {}, ["kv.prefix_sharing=all"]), None).prefixes_by_tenant
    assert not engine_config(load_config(None, {}, ["kv.prefix_caching=false"]), None).limits.prefix_caching


def test_a_scaling_policy_that_cannot_hold_is_refused_with_its_keys() -> None:
    wrong = ["scaling.min_replica_count=3", "scaling.max_replica_count=2"]
    scaling_policy(load_config(None, {}, wrong))  # it is not enabled
    with pytest.raises(ValueError, match=r"scaling\.\w+: "):
        scaling_policy(load_config(None, {}, ["scaling.enabled=true", *wrong]))


def test_only_the_head_has_a_cache_and_each_expert_its_number(checkpoint: Checkpoint) -> None:
    config = load_config(None, {}, ["head.threads=2", "experts.threads=3", "kv.page_size=8", "experts.num_gpus=1"])
    spec, experts = actor_specs(config, checkpoint)
    assert (spec.expert, spec.threads, spec.page_size, spec.device) == (None, 2, 8, "cpu")
    assert [e.expert for e in experts] == list(range(checkpoint.config.num_local_experts))
    assert {(e.threads, e.page_size, e.device, e.kv_memory_bytes) for e in experts} == {(3, 0, "cuda", 0)}
    assert {e.digest for e in experts} == {spec.digest} == {checkpoint.digest} and spec.code == experts[0].code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("actors/head.py", "model/trunk.py", "model/sampling/sampler.py", "cluster/engine/engine.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["actors/head.py", "model/trunk.py", "model/sampling/sampler.py"])
def test_what_runs_in_actors_counts_in_whatever_folder(checkout: Path, name: str) -> None:
    before = code_digest(checkout)
    assert before == code_digest(checkout)
    (checkout / name).write_text("other code")
    assert code_digest(checkout) != before


def test_a_file_that_moves_or_comes_counts_and_the_control_plane_does_not(checkout: Path) -> None:
    before = code_digest(checkout)
    (checkout / "cluster/engine/engine.py").write_text("other code")
    assert code_digest(checkout) == before
    (checkout / "actors/routing").mkdir()
    (checkout / "actors/head.py").rename(checkout / "actors/routing/head.py")
    moved = code_digest(checkout)
    assert moved != before
    (checkout / "actors/routing/empty.py").write_text("")
    assert code_digest(checkout) != moved


def test_this_checkouts_own_is_known() -> None:
    assert len(code_digest()) == 16
