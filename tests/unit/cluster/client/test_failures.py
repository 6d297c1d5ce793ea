"""What a failed call says."""

from collections.abc import Callable

import grpc
import pytest

from cluster.client.failures import CallFailed, explain, failing_plainly
from cluster.client.messages import text_request
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def test_a_failed_call_in_one_sentence(serving: Serving, serve_fake: ServeFake) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        serving.client.generate(pb.GenerateRequest(n=9, priority=500))
    said = explain(caught.value)
    assert said.startswith("INVALID_ARGUMENT: prompt: must be")
    assert "n: must be 1 to 8; priority: must be -100 to 100" in said
    stopped = serve_fake(FakeHead())
    stopped.engine.stop()
    with pytest.raises(grpc.RpcError) as caught:
        stopped.client.generate(text_request("a"))
    assert explain(caught.value).endswith("; try again in 5 s")


def test_a_failed_call_has_an_exit_code_and_says_which_server(serving: Serving, serve_fake: ServeFake) -> None:
    with pytest.raises(CallFailed) as wrong, failing_plainly(serving.client):
        serving.client.generate(pb.GenerateRequest())
    assert (wrong.value.code, wrong.value.exit_code, wrong.value.retry_seconds) == (3, 13, None)
    assert wrong.value.text.endswith(f"(server {serving.address})")
    stopped = serve_fake(FakeHead())
    stopped.engine.stop()
    with pytest.raises(CallFailed) as later, failing_plainly(stopped.client):
        stopped.client.generate(text_request("a"))
    assert (later.value.exit_code, later.value.retry_seconds) == (24, 5.0)
