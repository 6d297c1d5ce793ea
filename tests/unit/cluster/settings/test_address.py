"""HOST:PORT: its parts, who can reach it, and taking it."""

import socket

import pytest

from cluster.settings.address import bind, is_loopback, split


@pytest.mark.parametrize(
    ("address", "host", "port", "loopback"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051, True),
        ("127.8.8.8:1", "127.8.8.8", 1, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:8000", "::1", 8000, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("10.1.2.3:80", "10.1.2.3", 80, False),
        ("localhost.example.com:80", "localhost.example.com", 80, False),
    ],
)
def test_host_port_and_who_can_reach_it(address: str, host: str, port: int, loopback: bool) -> None:
    assert split(address) == (host, port)
    assert is_loopback(address) is loopback


def test_port_zero_takes_a_free_one_that_can_be_connected_to() -> None:
    with bind("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        assert port > 0
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_a_taken_port_is_named_with_the_reason() -> None:
    with bind("127.0.0.1:0") as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: .*in use"):
            bind(address)
    bind(address).close()  # and is free again at once


def test_an_address_of_another_machine_cannot_be_bound() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        bind("192.0.2.1:0")


def test_a_host_that_does_not_exist_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match=r"cannot listen on nowhere\.invalid:1: Name or service not known"):
        bind("nowhere.invalid:1")
