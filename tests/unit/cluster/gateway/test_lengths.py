"""Answers stay below what gRPC clients take."""

import pytest

from cluster.engine.served_model import ServedModel
from cluster.gateway.lengths import token_bytes
from cluster.gateway.rpc import inference
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.serving import Serving


@pytest.mark.parametrize("alternatives", [-1, 0, 5, 20])
def test_no_token_is_larger_than_its_bound(alternatives: int) -> None:
    piece = "é" * 8
    tops = [pb.TopToken(id=(1 << 21) - 1, bytes=piece.encode(), logprob=-1.5) for _ in range(max(0, alternatives))]
    empty = pb.GenerateResponse(outputs=[pb.Output(text="x" * 1000, token_ids=[9] * 200)])
    full = pb.GenerateResponse(outputs=[pb.Output(text="x" * 1000, token_ids=[9] * 200)])
    for _ in range(100):
        full.outputs[0].text += piece
        full.outputs[0].token_ids.append((1 << 21) - 1)
        if alternatives >= 0:
            full.outputs[0].tokens.append(pb.TokenInfo(id=(1 << 21) - 1, bytes=piece.encode(), logprob=-1.5, top=tops))
    grown = full.ByteSize() - empty.ByteSize()
    bound = 100 * token_bytes(16, alternatives, token_ids=True)
    assert grown <= bound + 16
    assert bound < 1.4 * grown


def test_a_stream_is_cut_into_messages_that_clients_take(
    demo: ServedModel, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one had all tokens of the prompt with their log-probabilities."""
    request = pb.GenerateRequest(
        prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[5 + i % 900 for i in range(600)])),
        stopping=pb.Stopping(max_tokens=4, ignore_eos=True),
        output=pb.OutputOptions(prompt_logprobs=20, logprobs=20, token_ids=True),
        sampling=pb.Sampling(temperature=0),
    )
    whole = list(serving.client.stream(request))
    monkeypatch.setattr(inference, "PIECE_BYTES", 20_000)
    cut = list(serving.client.stream(request))
    assert len(cut) > len(whole) + 5
    assert max(m.ByteSize() for m in cut) < 30_000 < max(m.ByteSize() for m in whole)
    for field in ("prompt_tokens", "tokens", "token_ids"):
        assert [t for m in cut for t in getattr(m, field)] == [t for m in whole for t in getattr(m, field)]
    assert cut[0].model and cut[-1].HasField("usage") and cut[-1].HasField("finish")
    assert not any(m.model for m in cut[1:])
