"""Every log-probability that a client is told is transformers' own, to 1e-4 in fp32, whatever else is in the batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cluster.engine.served_model import ServedModel
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.oracle import Oracle
from tests.serving import Serving

TEXTS = ["My favourite condiment is", "Once upon a time " * 30, "8", "The wind " * 45]  # two of them come in chunks
CLOSE = 1e-4


@pytest.fixture(scope="module")
def oracle(demo: ServedModel) -> Oracle:
    return Oracle(demo.checkpoint.folder)


def request(text: str, temperature: float) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=text),
        sampling=pb.Sampling(
            temperature=temperature, seed=5, top_k=40, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.5
        ),
        stopping=pb.Stopping(max_tokens=12, ignore_eos=True),
        output=pb.OutputOptions(logprobs=20, prompt_logprobs=20),
        n=2,
    )


def hold_against(oracle: Oracle, answer: pb.GenerateResponse) -> int:
    """How many log-probabilities were looked at."""
    prompt, looked = [token.id for token in answer.prompt_tokens], 0
    for output in answer.outputs:
        rows = oracle.logprobs(prompt + [token.id for token in output.tokens])
        told = [*answer.prompt_tokens, *output.tokens]
        assert not told[0].HasField("logprob") and not told[0].top
        for row, token in zip(rows, told[1:], strict=False):
            best = row.topk(20)
            assert token.logprob == pytest.approx(row[token.id].item(), abs=CLOSE)
            assert [top.logprob for top in token.top] == pytest.approx(best.values.tolist(), abs=CLOSE)
            assert [top.logprob for top in token.top] == pytest.approx([row[t.id].item() for t in token.top], abs=CLOSE)
            looked += 1 + 2 * len(token.top)
    return looked


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_logprob_is_that_of_transformers(temperature: float, serving: Serving, oracle: Oracle) -> None:
    """Prefix caching is on: where prompt_logprobs are asked for, the prompt is run all the same."""
    with ThreadPoolExecutor(len(TEXTS)) as pool:
        answers = list(pool.map(lambda text: serving.client.generate(request(text, temperature)), TEXTS))
    looked = sum(hold_against(oracle, answer) for answer in answers)
    assert looked > 5000
    assert torch.get_default_dtype() is torch.float32


def test_the_stream_says_the_same_as_the_whole_answer(serving: Serving) -> None:
    wanted = request(TEXTS[1], 1.0)
    whole = serving.client.generate(wanted)
    prompt: list[pb.TokenInfo] = []
    tokens: dict[int, list[pb.TokenInfo]] = {0: [], 1: []}
    for message in serving.client.stream(wanted):
        prompt += message.prompt_tokens
        tokens[message.index] += message.tokens
    assert [t.id for t in prompt] == [t.id for t in whole.prompt_tokens]
    for output in whole.outputs:
        assert [t.id for t in tokens[output.index]] == [t.id for t in output.tokens]
        told = [t.logprob for t in tokens[output.index]]
        assert told == pytest.approx([t.logprob for t in output.tokens], abs=1e-6)
