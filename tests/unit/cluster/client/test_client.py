"""The client in front of a server."""

from collections.abc import Callable

import grpc
import pytest
from grpc import StatusCode

from cluster.client.client import Client
from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from tests.fakes import FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def test_the_client_generates_streams_and_lists(serving: Serving) -> None:
    request = text_request("My favourite condiment is", Options(max_tokens=5, temperature=0.0))
    with Client(serving.address) as client:
        text = client.generate(request).outputs[0].text
        assert "".join(message.text for message in client.stream(request)) == text
        assert [model.id for model in client.models()] == ["demo"]


def test_a_timeout_is_the_calls_deadline(serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.hold()
    calls = (
        lambda: server.client.generate(text_request("a", Options(max_tokens=3)), timeout=0.05),
        lambda: list(server.client.stream(text_request("a", Options(max_tokens=3)), timeout=0.05)),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
