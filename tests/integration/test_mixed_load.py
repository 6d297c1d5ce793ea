"""Requests of every kind at once, with head and experts as Ray actors, get what each gets alone (fp32)."""

import random

from tests.integration.server import Server
from tests.mixed import ask, ask_all, some_request


def test_a_crowd_gets_what_each_gets_alone(server: Server) -> None:
    rng = random.Random(11)
    requests = [some_request(rng) for _ in range(60)]
    with server.client() as client:
        alone = [ask(client, request) for request in requests]
        answers = ask_all(client, requests, 3)
    assert [i for i in range(len(requests)) if answers[i] != alone[i]] == []
