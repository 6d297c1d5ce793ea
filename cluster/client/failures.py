"""A failed call at a terminal: a sentence, an exit code, and when the server wants the call again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster.client.client import Client
from cluster.client.proxies import proxy_of

EXIT_BASE = 10  # exit codes of failed calls are this plus the gRPC status code


@dataclass(eq=False)
class CallFailed(Exception):
    """A failed call, for people at a terminal: its status, what to say, and in how many seconds to call again. Not
    frozen, because Python sets the traceback of an exception that passes a context manager.
    """

    code: int
    text: str
    retry_seconds: float | None

    @property
    def exit_code(self) -> int:
        return EXIT_BASE + self.code


@contextmanager
def failing_plainly(client: Client) -> Iterator[None]:
    """Turn what a stub raises into CallFailed."""
    try:
        yield
    except grpc.RpcError as error:
        where = f"(server {client.address})"
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            where += "; --token-file or EIGHTWINDS_TOKEN gives a token"
        if error.code() is grpc.StatusCode.UNAVAILABLE and (proxy := proxy_of(client.address, os.environ)):
            where += f"; {proxy} sends this through a proxy: name the host in no_proxy if it should not"
        if (
            error.code() is grpc.StatusCode.UNAVAILABLE
            and not client.encrypted
            and "refused" not in str(error.details())
        ):
            where += "; if it speaks TLS, --ca or --tls is missing"
        raise CallFailed(error.code().value[0], f"{explain(error)} {where}", retry_of(error)) from None


def explain(error: grpc.RpcError) -> str:
    """A failed call in one sentence, with the wrong fields where the server named them."""
    call: Any = error  # what a stub raises is a grpc.Call, too, which the type stubs cannot say
    again = f"; try again in {retry:g} s" if (retry := retry_of(error)) is not None else ""
    return f"{call.code().name}: {call.details()}{again}"


def retry_of(error: grpc.RpcError) -> float | None:
    """In how many seconds the server wants the call again, if it said so."""
    call: Any = error
    try:
        status = rpc_status.from_call(call)
    except ValueError:
        return None
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            return float(retry.retry_delay.ToMilliseconds() / 1000)
    return None
