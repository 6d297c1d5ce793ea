"""Other shapes than the demo's, with their experts as Ray actors, against transformers."""

import os
import queue
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MixtralForCausalLM

from cluster.engine.engine import Engine
from cluster.engine.events import Event, Failed, Sampled
from cluster.launch.on_ray.deployment import launch
from cluster.launch.on_ray.joining import lead
from cluster.policy.scheduling.sequence import SequenceRequest
from cluster.settings.config import Config
from model.batch import SampledToken, SamplingParams
from model.checkpoint.folder import Checkpoint
from tests.checkpoints import tiny, write
from tests.engines import engine_bounds
from tests.integration.server import Server

NEW_TOKENS = 64
PROMPT = (3, 14, 15, 92, 65, 35, 89, 79, 32, 38, 46, 26, 43, 38, 32, 79, 50, 28, 84, 19)

SHAPES = [
    tiny(num_local_experts=4, num_experts_per_tok=1, sliding_window=8, tie_word_embeddings=True),
    tiny(
        num_local_experts=4,
        num_experts_per_tok=3,
        num_attention_heads=8,
        num_key_value_heads=1,
        rope_theta=None,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    ),
]


@pytest.mark.usefixtures("on_loopback")
@pytest.mark.parametrize("content", SHAPES, ids=["top-1, window, tied", "top-3, 8:1, rope_parameters"])
def test_greedy_ids_and_log_probabilities_over_ray_equal_transformers(
    server: Server, tmp_path: Path, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "tiny", content)
    expected, logprobs = _transformers(folder)

    assert server.local is not None
    monkeypatch.setitem(os.environ, "RAY_AUTH_MODE", "disabled")
    config = Config.model_validate(
        {
            "experts": {"count": 4},
            "kv": {"page_size": 4, "memory_bytes": 1 << 20},
            "cluster": {"namespace": "tiny", "ray_address": server.local.address},
        }
    )
    checkpoint = Checkpoint.open(folder)
    stop = threading.Event()
    leadership = lead(config, stop, lambda: "")
    deployment = launch(config, checkpoint, None, leadership, lambda phase, progress: None, stop)
    try:
        tokens = _generate(deployment.head, checkpoint.config.sliding_window)
    finally:
        deployment.close(False)
    assert [token.token_id for token in tokens] == expected
    for token, row in zip(tokens, logprobs, strict=True):
        for other, logprob in token.top:
            assert logprob == pytest.approx(float(row[other]), abs=1e-4)


def _transformers(folder: Path) -> tuple[list[int], torch.Tensor]:
    model: Any = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        rows = model(torch.tensor([ids])).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    return ids[len(PROMPT) :], rows


def _generate(head: Any, window: int | None) -> list[SampledToken]:
    """Greedy tokens with 20 alternatives each, the prompt in chunks of 7."""
    inbox: queue.Queue[list[Event]] = queue.Queue()
    engine = Engine(head, engine_bounds(max_tokens_per_step=7, window=window), inbox.put)
    engine.start()
    engine.submit([SequenceRequest(PROMPT, SamplingParams(temperature=0.0, logprobs=20), NEW_TOKENS)])
    tokens: list[SampledToken] = []
    while len(tokens) < NEW_TOKENS:
        for event in inbox.get(timeout=60):
            assert not isinstance(event, Failed), event
            if isinstance(event, Sampled):
                assert (event.finish is not None) == (len(tokens) == NEW_TOKENS - 1)
                tokens.append(event.token)
    engine.stop()
    engine.check()
    return tokens
