"""The demo checkpoint through the gateway gives what transformers gives."""

import random

import pytest
import torch

from cluster.engine.served_model import DEMO_FOLDER
from model.text.tokenizer import Tokenizer
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.integration.server import Server
from tests.oracle import Oracle

NEW_TOKENS = 32
OPENINGS = [
    "My favourite condiment is",
    "Once upon a time",
    "12 + 7 =",
    "def ",
    "The weather in",
    "",
    "a",
    "  two spaces",
    "日本 🍜",
    "</s> is text",
]


def prompts(tokenizer: Tokenizer) -> list[list[int]]:
    """50 prompts: openings, random ids, and texts more than three times as long as the window of 128."""
    rng = random.Random(5)
    found = [tokenizer.encode(text) for text in OPENINGS]
    found += [[1] + [rng.randrange(3, 2048) for _ in range(rng.randrange(1, 120))] for _ in range(25)]
    words = [
        "mustard",
        "and",
        "ketchup",
        "on",
        "a",
        "warm",
        "roll",
        "with",
        "3",
        "+",
        "4",
        "onions",
        "while",
        "the",
        "rain",
        "fell",
        "over",
        "the",
        "small",
        "town",
    ]
    for length in range(390, 540, 10):
        ids = tokenizer.encode(" ".join(rng.choice(words) for _ in range(length)))
        found.append(ids[:length])
    assert len(found) == 50
    return found


@pytest.fixture(scope="module")
def expected() -> list[tuple[list[int], list[int]]]:
    """(prompt, the ids that transformers appends greedily) for each prompt."""
    torch.set_num_threads(1)  # the server's processes want the cores, too
    oracle = Oracle(DEMO_FOLDER)
    return [(ids, oracle.greedy(ids, NEW_TOKENS)) for ids in prompts(Tokenizer.load(DEMO_FOLDER))]


def request(ids: list[int]) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=ids)),
        sampling=pb.Sampling(temperature=0.0),
        stopping=pb.Stopping(max_tokens=NEW_TOKENS),
        output=pb.OutputOptions(token_ids=True),
    )


def test_fifty_prompts_one_after_the_other_give_the_ids_of_transformers(
    server: Server, expected: list[tuple[list[int], list[int]]]
) -> None:
    with server.client() as client:
        for ids, wanted in expected:
            answer = client.generate(request(ids), timeout=120)
            assert list(answer.outputs[0].token_ids) == wanted, f"prompt of {len(ids)} tokens: {ids[:8]}"


def test_fifty_prompts_all_at_once_give_the_same(server: Server, expected: list[tuple[list[int], list[int]]]) -> None:
    with server.client() as client:
        answers = [(wanted, client.stub.Generate.future(request(ids), timeout=300)) for ids, wanted in expected]
        for wanted, answer in answers:
            assert list(answer.result().outputs[0].token_ids) == wanted
