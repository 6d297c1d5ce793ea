"""A stream goes on where it broke, with the tokens that it would have had."""

import random
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.client.client import Client
from cluster.client.failures import CallFailed
from cluster.client.resume import Resumption, resuming
from protos.eightwinds.v1 import inference_pb2 as pb

OUTPUTS = [["On", "ce ", "", "upon", " a time"], ["12", "3"]]


def messages(seed: int, rng: random.Random) -> list[pb.GenerateStreamResponse]:
    """A whole stream; how its text is divided into messages, and how outputs mix, is chance."""
    found, left = [], [list(enumerate(words)) for words in OUTPUTS]
    while any(left):
        index = rng.choice([i for i, words in enumerate(left) if words])
        taken = [left[index].pop(0) for _ in range(rng.randint(1, len(left[index])))]
        message = pb.GenerateStreamResponse(index=index, text="".join(word for _, word in taken))
        message.token_ids.extend(number for number, _ in taken)
        message.tokens.extend(pb.TokenInfo(id=number) for number, _ in taken)
        if not left[index]:
            message.finish.reason = pb.FINISH_REASON_LENGTH
        found.append(message)
    found[0].seed, found[0].request_id = seed, "first"
    found[-1].usage.completion_tokens = 7
    return found


class Broken(grpc.RpcError):
    """What a stub raises when the connection is gone."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "Socket closed"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Flaky(Client):
    """A server whose streams break after so many messages each, then no more."""

    def __init__(self, breaks: list[int], seed: int, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.address, self.encrypted = "there", False
        self.breaks, self.rng, self.code_ = breaks, random.Random(seed), code
        self.asked: list[pb.GenerateRequest] = []

    def stream(self, request: pb.GenerateRequest, timeout: float | None = None) -> Iterator[pb.GenerateStreamResponse]:
        self.asked.append(pb.GenerateRequest.FromString(request.SerializeToString()))
        whole = messages(request.sampling.seed or 77, self.rng)
        for number, message in enumerate(whole):
            if self.breaks and number >= self.breaks[0]:
                self.breaks.pop(0)
                raise Broken(self.code_)
            yield message


def read(client: Client, patience: float = 30.0) -> list[Any]:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    return list(resuming(client, pb.GenerateRequest(), None, patience, clock=lambda: now[0], pause=pause))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6), max_size=4), st.integers(0, 10**6))
def test_whatever_breaks_everything_comes_once_and_in_order(breaks: list[int], seed: int) -> None:
    client = Flaky(list(breaks), seed)
    found = read(client)
    for index, words in enumerate(OUTPUTS):
        mine = [m for m in found if m.index == index]
        assert "".join(m.text for m in mine) == "".join(words)
        assert [i for m in mine for i in m.token_ids] == list(range(len(words)))
        assert [t.id for m in mine for t in m.tokens] == list(range(len(words)))
        assert [m.HasField("finish") for m in mine].count(True) == 1
    assert sum(m.HasField("usage") for m in found) == 1
    assert all(request.sampling.seed == 77 for request in client.asked[1:]), "the seed that the first answer reported"


def test_a_server_that_stays_away_fails_after_the_patience() -> None:
    with pytest.raises(CallFailed) as failed:
        read(Flaky([1, *([0] * 1000)], 1), patience=10.0)
    assert failed.value.code == 14


@pytest.mark.parametrize("breaks", [[0]], ids=["before the first message"])
def test_what_never_began_is_not_tried_again(breaks: list[int]) -> None:
    client = Flaky(breaks, 1)
    with pytest.raises(CallFailed):
        read(client)
    assert len(client.asked) == 1


def test_other_failures_are_the_callers() -> None:
    client = Flaky([1], 1, grpc.StatusCode.INTERNAL)
    with pytest.raises(CallFailed) as failed:
        read(client)
    assert failed.value.code == 13 and len(client.asked) == 1


def test_a_request_keeps_its_own_seed() -> None:
    request = pb.GenerateRequest(sampling=pb.Sampling(seed=5))
    state = Resumption(request)
    state.new(pb.GenerateStreamResponse(seed=5, text="a"))
    assert state.again().sampling.seed == 5
    assert state.new(pb.GenerateStreamResponse(seed=5, text="a")) is None
    rest = state.new(pb.GenerateStreamResponse(text="b"))
    assert rest is not None and rest.text == "b"


def test_tokens_of_the_prompt_in_several_messages_come_once() -> None:
    def stream() -> list[pb.GenerateStreamResponse]:
        parts = [
            pb.GenerateStreamResponse(prompt_tokens=[pb.TokenInfo(id=i) for i in ids]) for ids in ([1, 2], [3], [4])
        ]
        parts[0].request_id, parts[0].seed, parts[2].text = "first", 5, "On"
        return parts

    for broken in range(4):
        state, found = Resumption(pb.GenerateRequest()), list[pb.GenerateStreamResponse | None]()
        found += [state.new(message) for message in stream()[:broken]]
        state.again()
        found += [state.new(message) for message in stream()]
        told = [m for m in found if m is not None]
        assert [t.id for m in told for t in m.prompt_tokens] == [1, 2, 3, 4]
        assert "".join(m.text for m in told) == "On"
