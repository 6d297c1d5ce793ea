"""Weights that come over Ray into a cache."""

import errno
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from actors.remote.caches import empty_caches
from actors.remote.memory import RayMemory
from actors.remote.pull import PulledWeights, say_where
from actors.specs import ActorSpec
from model.checkpoint import mirror
from model.checkpoint.folder import Checkpoint
from model.checkpoint.mirror import Mirror, Span
from model.checkpoint.weights import Tensors
from tests.checkpoints import spec, tiny, write
from tests.integration.server import Server

EXPERT = 2


@pytest.fixture(name="original")
def _original(tmp_path: Path) -> Checkpoint:
    return Checkpoint.open(write(tmp_path / "original", tiny(hidden_size=64, intermediate_size=96)))


@pytest.fixture(name="pulled")
def _pulled(
    server: Server, on_loopback: None, original: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ActorSpec]:
    """The spec of an expert in a cluster whose memory says where the folder is."""
    assert server.local is not None
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(address=server.local.address, namespace="pull", log_to_driver=False, logging_level=logging.ERROR)
    say_where(RayMemory("pull"))
    yield replace(spec(original.folder, EXPERT), digest=original.digest, cache=str(tmp_path / "cache"))
    ray.shutdown()


def bring(weights: PulledWeights) -> list[int]:
    """What is told of the progress."""
    told = list[int]()
    weights.bring(weights.checkpoint.expert_names(EXPERT), told.append)
    return told


def test_tensors_come_once_and_are_the_original_ones(
    original: Checkpoint, pulled: ActorSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CHUNK", 4096)
    weights = PulledWeights(pulled)
    names = weights.checkpoint.expert_names(EXPERT)
    told = bring(weights)
    assert told[0] == 0 and len(told) > 10 and sum(told) == weights.to_bring(names) == original.nbytes(names)
    for name in names:
        assert torch.equal(*(Tensors(c, names, torch.float32)[name] for c in (weights.checkpoint, original)))
    assert bring(PulledWeights(pulled)) == [original.nbytes(names)], "they are there already"
    other = Path(pulled.cache) / "somebody's"
    other.touch()
    (line,) = empty_caches(pulled.cache)
    assert line.startswith("removed 0.00 GB") and [*Path(pulled.cache).iterdir()] == [other], "only what is ours"
    assert empty_caches(pulled.cache) == []


def test_a_piece_that_comes_damaged_is_asked_for_again_and_a_killed_process_goes_on(
    original: Checkpoint, pulled: ActorSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "CHUNK", 4096)
    put, calls = Mirror.put, list[Span]()

    def killed(self: Mirror, span: Span, data: bytes, digest: str) -> None:
        calls.append(span)
        if len(calls) == 2:
            data = data[::-1]
        if len(calls) == 6:
            raise KeyboardInterrupt
        put(self, span, data, digest)

    monkeypatch.setattr(Mirror, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        bring(PulledWeights(pulled))
    assert calls[1] in calls[2:], "it was asked for again"
    monkeypatch.setattr(Mirror, "put", put)
    told = bring(PulledWeights(pulled))
    assert told[0] == 4 * 4096 and sum(told) == original.nbytes(original.expert_names(EXPERT))


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    pulled: ActorSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"do not fit into .*cache, which has .* GB free: make room there"):
        bring(PulledWeights(pulled))


@pytest.mark.parametrize("harm", ["config.json", "model.safetensors"])
def test_a_damaged_mirror_is_mended(original: Checkpoint, pulled: ActorSpec, harm: str) -> None:
    """As a power cut may leave it."""
    weights = PulledWeights(pulled)
    bring(weights)
    (weights.checkpoint.folder / harm).write_bytes(b"")
    again = PulledWeights(pulled)
    assert again.checkpoint.digest == original.digest
    bring(again)
    names = again.checkpoint.expert_names(EXPERT)
    assert all(torch.equal(*(Tensors(c, names, torch.float32)[n] for c in (again.checkpoint, original))) for n in names)


def test_another_checkpoint_at_the_same_path_is_refused(original: Checkpoint, pulled: ActorSpec) -> None:
    write(original.folder, tiny(hidden_size=64, intermediate_size=96, rope_theta=5000.0))
    with pytest.raises(ValueError, match="has changed since the server started"):
        PulledWeights(pulled)
