"""Which connections go through a proxy of the environment."""

import socket
import threading

import pytest

from cluster.client.client import Client
from cluster.client.failures import CallFailed, failing_plainly
from cluster.client.proxies import proxy_of, proxy_options
from tests.serving import Serving


@pytest.mark.parametrize(
    "address", ["127.0.0.1:50051", "127.8.8.8:1", "localhost:1", "localhost", "[::1]:1", "dns:///127.0.0.1:1"]
)
def test_this_machine_is_never_reached_through_one(address: str) -> None:
    assert proxy_options(address) == [("grpc.enable_http_proxy", 0)]
    assert proxy_of(address, {"http_proxy": "http://proxy:3128"}) == ""


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, ""),
        ({"http_proxy": "http://p:1"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "https_proxy": "http://p:1"}, "https_proxy"),
        ({"http_proxy": "http://p:1", "grpc_proxy": "http://p:1"}, "grpc_proxy"),
        ({"http_proxy": "http://p:1", "no_proxy": "other.net, example.org"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, ""),
        ({"http_proxy": "http://p:1", "no_proxy": "other.net,"}, "http_proxy"),
        ({"http_proxy": "http://p:1", "no_grpc_proxy": "other.net", "no_proxy": "example.org"}, "http_proxy"),
    ],
)
def test_elsewhere_the_environment_says(environment: dict[str, str], variable: str) -> None:
    assert proxy_options("gpu.example.org:50051") == [("grpc.enable_http_proxy", 1)]
    assert proxy_of("gpu.example.org:50051", environment) == variable


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_a_client_reaches_this_machine_although_a_proxy_is_set(
    variable: str, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with Client(serving.address) as client:
        assert [model.id for model in client.models()] == ["demo"]


def test_who_cannot_be_reached_through_a_proxy_is_told_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        answering = threading.Thread(target=_refuse, args=(proxy,), daemon=True)
        answering.start()
        told = pytest.raises(CallFailed, match="http_proxy sends this")
        with Client("gpu.example.org:50051") as client, told, failing_plainly(client):
            client.models()


def _refuse(proxy: socket.socket) -> None:
    while True:
        try:
            taken, _ = proxy.accept()
        except OSError:
            return
        with taken:
            taken.recv(4096)
            taken.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
