"""Certificate and key of a server, and the authority whose clients it lets in: PEM files, read again after a change."""

import logging
import os
import ssl
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster.settings.tokens import distrusted

log = logging.getLogger("eightwinds.certificates")

_SOON = timedelta(days=14)
_AGAIN, _NEVER = timedelta(seconds=5), datetime.max.replace(tzinfo=UTC)
_Stamps = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """One state of the files, in PEM. `context` is the same for Python's own sockets, which speak HTTP/1.1."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    expires: datetime
    context: ssl.SSLContext

    def warning(self, now: datetime) -> str:
        """A warning for the operator, or ""."""
        left = self.expires - now
        if left >= _SOON:
            return ""
        when = f"{self.expires:%Y-%m-%d %H:%M} UTC"
        return f"the certificate expires at {when}" if left > timedelta(0) else f"the certificate expired at {when}"


def _utc() -> datetime:
    return datetime.now(UTC)


class Certificates:
    """The files, read again when one of them has changed. As long as they do not fit each other, cannot be read or hold
    an expired certificate, their last good state stays in force, because they are replaced one after the other.
    """

    def __init__(
        self, certificate: Path, key: Path, client_ca: Path | None = None, clock: Callable[[], datetime] = _utc
    ) -> None:
        """With `client_ca` only callers with a certificate of that authority may connect. ValueError says what is wrong
        with which file.
        """
        self._clock, self._again, self._said = clock, _NEVER, ""
        self._paths = [certificate, key, *([client_ca] if client_ca else [])]
        self._reading = threading.Lock()  # gRPC asks from its own threads
        self._stamps = self._look()
        self._identity = self._read()
        if warning := self._identity.warning(clock()):
            log.warning("%s: %s", certificate, warning)

    @property
    def asks_clients(self) -> bool:
        """Whether callers must show a certificate."""
        return len(self._paths) > 2

    def current(self) -> Identity:
        """The state to use for a connection that comes now."""
        with self._reading:
            stamps, now = self._look(), self._clock()
            if stamps != self._stamps or now >= self._again:
                self._stamps = stamps
                try:
                    self._identity = self._read()
                    self._again, self._said = _NEVER, ""
                    log.info("read %s again: valid until %s", self._paths[0], self._identity.expires.date())
                except (ValueError, OSError) as error:
                    self._again = now + _AGAIN  # a file may become readable without a change of its own
                    if str(error) != self._said:
                        log.error("the certificate is kept as it was: %s", error)
                        self._said = str(error)
            return self._identity

    def _look(self) -> _Stamps:
        return tuple(map(_stamp, self._paths))

    def _read(self) -> Identity:
        """ValueError if the files are no identity, or change meanwhile."""
        before = self._look()
        chain, key, *others = map(_contents, self._paths)
        certificate = _certificates(self._paths[0], chain)[0]
        for path in self._paths[1:]:
            _check_owner(path)
        _check_key(self._paths[1], key)
        if certificate.not_valid_before_utc > self._clock():
            raise ValueError(
                f"{self._paths[0]} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            )
        if certificate.not_valid_after_utc <= self._clock():
            raise ValueError(f"{self._paths[0]} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        for path, authority in zip(self._paths[2:], others, strict=True):
            _certificates(path, authority)
        context = self._context()
        if self._look() != before:
            raise ValueError("its files change just now")
        return Identity(chain, key, others[0] if others else None, certificate.not_valid_after_utc, context)

    def _context(self) -> ssl.SSLContext:
        certificate, key, *authority = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError:
            raise ValueError(f"{key} is not the key of {certificate}") from None
        for path in authority:
            try:
                context.load_verify_locations(path)
            except ssl.SSLError as error:
                raise ValueError(f"{path} cannot be used: {error.reason}") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ValueError(f"{path} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)") from None


def _check_owner(path: Path) -> None:
    if why := distrusted(path.stat(), {0, os.geteuid()}):
        raise ValueError(f"{path} cannot be trusted: {why}")


def _check_key(path: Path, pem: bytes) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        log.warning("every user of this machine can read the key %s: chmod 600 it", path)
    try:
        load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError(f"{path} is encrypted: a server needs a key without a passphrase") from None
    except ValueError:
        raise ValueError(f"{path} holds no private key in PEM") from None
