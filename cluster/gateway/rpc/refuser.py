"""Ends refused calls before anything of their messages is read."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from typing import Any

import grpc

from cluster.gateway.auth import machine
from cluster.gateway.errors import ApiError
from cluster.gateway.rpc.status import Context, abort, given_id
from cluster.observe.refusals import Refusals
from cluster.policy.reluctance import Reluctance

_MOST_HEADERS = 64  # of a call that is held back: a list that expands may take a megabyte


class Refuser:
    """Ends calls with the reason; those of a flood late, so that a stranger waits, and runs out of the streams of its
    connection.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._refusals, self._reluctance, self._held = refusals, Reluctance(), 0

    def handler(self, error: ApiError) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that ends a call of any method.

        It takes many messages even where the method has one, because gRPC reads a single message whole before it calls
        a handler.
        """

        async def end(messages: object, context: Context) -> None:
            self._refusals.note(error.reason, context.peer())
            now = asyncio.get_running_loop().time()
            seconds = self._reluctance.seconds(machine(context.peer()), now, self._held)
            if seconds and len(context.invocation_metadata() or ()) <= _MOST_HEADERS:
                self._held += 1
                try:
                    await asyncio.sleep(seconds)
                finally:
                    self._held -= 1
            await abort(context, error, given_id(context))

        return grpc.stream_stream_rpc_method_handler(end)
