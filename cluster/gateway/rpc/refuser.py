"""Ends refused calls before anything of their messages is read."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from cluster.gateway.auth import machine
from cluster.gateway.errors import ApiError
from cluster.gateway.rpc.status import Context, abort, given_id
from cluster.observe.refusals import Refusals, Reluctance

_MOST_HEADERS = 64  # of a call that is held back: a list that expands may take a megabyte


class Refuser:
    """Ends calls with the reason; those of a flood late, so that a stranger waits, and runs out of the streams of its
    connection.
    """

    def __init__(self, refusals: Refusals, reluctance: Reluctance | None = None) -> None:
        self._refusals, self._reluctance, self._held = refusals, reluctance or Reluctance(), 0

    def handler(self, handler: grpc.RpcMethodHandler[Any, Any], error: ApiError) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that ends the call in place of the given one.

        It takes many messages even where the method has one, because gRPC reads a single message whole before it calls
        a handler.
        """

        async def one(messages: object, context: Context) -> None:
            await self._end(context, error)

        async def many(messages: object, context: Context) -> AsyncIterator[Any]:
            await self._end(context, error)
            yield  # which makes it a generator; `_end` raises

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(many)
        return grpc.stream_unary_rpc_method_handler(one)

    async def _end(self, context: Context, error: ApiError) -> None:
        self._refusals.note(error.reason, context.peer())
        seconds = self._reluctance.seconds(machine(context.peer()), asyncio.get_running_loop().time(), self._held)
        if seconds and len(context.invocation_metadata() or ()) <= _MOST_HEADERS:
            self._held += 1
            try:
                await asyncio.sleep(seconds)
            finally:
                self._held -= 1
        await abort(context, error, given_id(context))
