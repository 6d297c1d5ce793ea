"""TLS on the HTTP port: a connection counts from its first byte, and is encrypted in the time that a request has."""

import asyncio
from typing import Protocol

from cluster.gateway.web.door import Door
from cluster.settings.certificates import Certificates

# From the end of an answer to that of the connection: for what is not sent yet, of which the door sees whether any is
# taken, and for the other end's word that it has understood.
_CLOSE_SECONDS = 60.0


class Encrypted(Protocol):
    """A connection that speaks HTTP once it is encrypted."""

    wire: asyncio.Transport | None

    def connection_made(self, transport: asyncio.Transport, /) -> None: ...

    def data_received(self, data: bytes, /) -> None: ...


class Handshake(asyncio.Protocol):
    """A connection before it is encrypted; `then` takes it over, and learns its `wire`, the socket's own transport."""

    def __init__(self, door: Door, certificates: Certificates, seconds: float, then: Encrypted) -> None:
        self.loop = asyncio.get_running_loop()
        self.client: object = None
        self._door, self._certificates, self._seconds, self._then = door, certificates, seconds, then
        self._early: list[bytes] = []  # a request may come with the last words of the handshake
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # streams have this kind
        self.transport, self.client = transport, transport.get_extra_info("peername")
        transport.pause_reading()  # what comes before TLS listens would be lost
        transport.set_write_buffer_limits(0)  # so that every byte that is not taken is noticed
        self._door.enter(self)
        self._door.awaits(self, unread=False, owing=True)
        self._task = self.loop.create_task(self._encrypt())

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self)

    def has_read(self) -> bool:
        return False

    async def _encrypt(self) -> None:
        context = self._certificates.current().context
        try:
            encrypted = await self.loop.start_tls(
                self.transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._seconds,
                ssl_shutdown_timeout=_CLOSE_SECONDS,
            )
        except OSError:  # also ssl.SSLError, and a timeout
            self._door.refuse(self, "TLS_REFUSED")
            return
        self._door.leave(self)
        if encrypted is None or encrypted.is_closing():
            return
        self._then.wire = self.transport
        encrypted.set_protocol(self._then)  # type: ignore[arg-type]  # uvicorn's is an asyncio.Protocol
        self._then.connection_made(encrypted)
        for data in self._early:
            self._then.data_received(data)
