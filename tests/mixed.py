"""Requests of every kind at once, and what each is answered: for comparing a crowd with each request alone."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.client.client import Client
from protos.eightwinds.v1 import inference_pb2 as pb

_TEXTS = ["Once upon a time there was", "The wind", "She said that", "A long road leads to the hill, where", "8"]

Answer = list[tuple[str, list[int], int, str]]  # of each output: text, ids, reason of its end, stop string


def some_request(rng: random.Random) -> pb.GenerateRequest:
    """Greedy or seeded, n = 1..4, with or without penalties and stop strings; the long prompts share pages."""
    start = rng.choice(_TEXTS) * rng.choice([1, 1, 1, 12])
    sampling = pb.Sampling(temperature=0)
    if rng.random() < 0.6:
        sampling = pb.Sampling(temperature=rng.choice([0.7, 1.3]), seed=rng.randrange(2**40), top_p=0.95)
    if rng.random() < 0.3:
        sampling.MergeFrom(pb.Sampling(repetition_penalty=1.2, presence_penalty=0.5, frequency_penalty=-0.3))
    stopping = pb.Stopping(max_tokens=rng.randrange(1, 20), ignore_eos=rng.random() < 0.3)
    if rng.random() < 0.3:
        stopping.stop.extend(["e", "the w"])
    return pb.GenerateRequest(
        prompt=pb.Prompt(text=start + rng.choice(["", " and", " Tom"])),
        sampling=sampling,
        stopping=stopping,
        output=pb.OutputOptions(token_ids=True),
        n=rng.choice([1, 1, 2, 3, 4]),
        priority=rng.randrange(-2, 3),
        user=rng.choice("abc"),
    )


def ask(client: Client, request: pb.GenerateRequest) -> Answer:
    """What one request is answered."""
    response = client.generate(request)
    return [(o.text, list(o.token_ids), o.finish.reason, o.finish.stop) for o in response.outputs]


def ask_all(client: Client, requests: Sequence[pb.GenerateRequest], seed: int, at_once: int = 48) -> list[Answer]:
    """What they are answered when they arrive in a random order, `at_once` of them under way at any time."""
    order = random.Random(seed).sample(range(len(requests)), len(requests))
    with ThreadPoolExecutor(at_once) as pool:
        answers = dict(zip(order, pool.map(lambda i: ask(client, requests[i]), order), strict=True))
    return [answers[i] for i in range(len(requests))]
