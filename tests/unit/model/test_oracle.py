"""Reference and distributed path against transformers' `MixtralForCausalLM` on random configurations."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from model.checkpoint.folder import Checkpoint
from model.checkpoint.weights import torch_dtype
from model.reference import Reference
from tests.checkpoints import Driver, Request, load_head, tiny, write
from tests.logits import chunked_logits, load_transformers

TOLERANCE = 1e-4
COUNT = 64  # greedy tokens
PROMPTS = (1, 13, 38)  # their lengths: with 64 tokens behind them all outgrow the windows below
CHUNKS = ((1,), (5, 3, 1), (7, 2, 11, 1))  # of each sequence, one step each; the last size is repeated

CASES: dict[str, dict[str, Any]] = {
    "one query head per KV head": {"num_key_value_heads": 4},
    "four query heads per KV head": {"num_attention_heads": 8, "num_key_value_heads": 2},
    "eight query heads per KV head": {"num_attention_heads": 8, "num_key_value_heads": 1},
    "KV heads not named": {"num_key_value_heads": None, "num_attention_heads": 8},
    "a window shorter than the text": {"sliding_window": 9},
    "a window of two keys": {"sliding_window": 2},
    "a window longer than the text": {"sliding_window": 200},
    "window, GQA and top-3": {"sliding_window": 16, "num_attention_heads": 8, "num_experts_per_tok": 3},
    "tied embeddings": {"tie_word_embeddings": True},
    "tied embeddings, window, four experts": {"tie_word_embeddings": True, "sliding_window": 7, "num_local_experts": 4},
    "rope_parameters": {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "the default rope_theta": {"rope_theta": None},
    "wide heads": {"head_dim": 24},
    "narrow heads": {"head_dim": 2, "num_attention_heads": 8},
    "head_dim not named": {"head_dim": None, "hidden_size": 48},
    "top-1": {"num_experts_per_tok": 1},
    "top-3 of four experts": {"num_experts_per_tok": 3, "num_local_experts": 4},
    "all of four experts": {"num_experts_per_tok": 4, "num_local_experts": 4},
    "one layer, odd sizes": {"num_hidden_layers": 1, "vocab_size": 131, "hidden_size": 36, "intermediate_size": 17},
    "three layers, coarse norm": {"num_hidden_layers": 3, "rms_norm_eps": 0.1, "vocab_size": 211},
}
SHARDED = {"tied embeddings", "window, GQA and top-3", "wide heads", "top-1"}


@dataclass(frozen=True)
class Text:
    """A prompt, its greedy continuation, and the logits at every position of both, by transformers."""

    prompt: list[int]
    greedy: list[int]
    logits: torch.Tensor

    @property
    def ids(self) -> list[int]:
        return self.prompt + self.greedy


@dataclass(frozen=True)
class Case:
    """A checkpoint, and texts that transformers continued with it."""

    folder: Path
    texts: list[Text]


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    name: str = request.param
    content = tiny(**CASES[name])
    folder = write(tmp_path_factory.mktemp("checkpoint"), content, shards=3 if name in SHARDED else 1)
    hf = load_transformers(folder)
    rng = random.Random(name)
    return Case(folder, [decisive_text(hf, length, rng) for length in PROMPTS])


def decisive_text(hf: Any, length: int, rng: random.Random) -> Text:
    """A random prompt that is continued without a near tie, which another order of summation could decide."""
    while True:
        prompt = [rng.randrange(hf.config.vocab_size) for _ in range(length)]
        with torch.inference_mode():
            ids = hf.generate(torch.tensor([prompt]), max_new_tokens=COUNT, do_sample=False)[0].tolist()
            logits = hf(torch.tensor([ids])).logits[0]
        best = logits[length - 1 : -1].topk(2).values
        if (best[:, 0] - best[:, 1]).min() > 2 * TOLERANCE:
            return Text(prompt, ids[length:], logits)


def test_reference_equals_transformers(case: Case) -> None:
    reference = Reference(case.folder)
    for text in case.texts:
        logits = reference.logits(text.ids)
        assert (logits - text.logits).abs().max() <= TOLERANCE
        # the reference keeps no cache, so what it finds best at each place of the text is its greedy choice there
        assert logits.argmax(-1).tolist()[len(text.prompt) - 1 : -1] == text.greedy


def test_trunk_router_and_experts_equal_transformers(case: Case) -> None:
    found = chunked_logits(case.folder, [text.ids for text in case.texts], CHUNKS)
    for logits, text in zip(found, case.texts, strict=True):
        assert (logits - text.logits).abs().max() <= TOLERANCE


def test_head_samples_the_greedy_tokens_of_transformers(case: Case) -> None:
    window = Checkpoint.open(case.folder).config.sliding_window
    driver = Driver(load_head(case.folder, pages=100), window=window)
    sampled = driver.run([Request(text.prompt, COUNT, c) for text, c in zip(case.texts, CHUNKS, strict=True)])
    assert sampled == [text.greedy for text in case.texts]
    if window is not None:
        chunk = max(max(sizes) for sizes in CHUNKS)
        assert driver.most_pages <= -(-(window + chunk) // driver.info.page_size) + 1


def test_reference_decodes_greedily_step_by_step(tmp_path: Path) -> None:
    reference = Reference(write(tmp_path, tiny(num_hidden_layers=1)))
    ids = [5, 6, 7]
    for _ in range(8):
        ids.append(int(reference.logits(ids)[-1].argmax()))
    assert reference.greedy([5, 6, 7], 8) == ids[3:]


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_checkpoint_that_transformers_wrote_is_served_alike(shard_size: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    content = tiny(initializer_range=0.2)
    hf: Any = MixtralForCausalLM(MixtralConfig.from_dict(content)).eval()
    hf.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors").exists() == (shard_size == "1GB")
    text = list(range(40))
    with torch.inference_mode():
        expected = hf(torch.tensor([text])).logits[0]
    assert (Reference(tmp_path).logits(text) - expected).abs().max() <= TOLERANCE
    assert (chunked_logits(tmp_path, [text], [(17, 4)])[0] - expected).abs().max() <= TOLERANCE


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_where_transformers_does(dtype: str, tmp_path: Path) -> None:
    """Two ways of rounding differ by as much as each differs from fp32; the same way differs by far less."""
    folder = write(tmp_path, tiny(dtype=dtype))
    text = list(range(60))
    with torch.inference_mode():
        exact = load_transformers(folder)(torch.tensor([text])).logits[0]
        rounded = load_transformers(folder, torch_dtype(dtype), "sdpa")(torch.tensor([text])).logits[0].float()
    assert (Reference(folder).logits(text) - exact).abs().max() <= TOLERANCE  # stored in halves, run in fp32
    found = chunked_logits(folder, [text], [(60,)], dtype)[0]
    assert (found - rounded).abs().mean() <= 0.1 * (rounded - exact).abs().mean()
