"""Bearer tokens: a file of their SHA-256 hashes gives each caller's scopes.

    # name   scopes              hash
    alice    inference           sha256:9f86d081...
    ops      inference,cluster   sha256:60303ae2...    priority=100

A line names a caller; two lines may name the same caller while a token is being replaced. A plain hash is safe because
a token is 256 random bits: there is nothing to guess that a slow hash would protect.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

log = logging.getLogger("eightwinds.tokens")

_PREFIX = "ew_"  # so that scanners for leaked secrets recognise a token
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_PRIORITY = re.compile(r"-?(\d{1,2}|100)")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class Scope(StrEnum):
    """A service that a token allows to call."""

    INFERENCE = "inference"  # InferenceService
    CLUSTER = "cluster"  # ClusterService


@dataclass(frozen=True, slots=True)
class Holder:
    """The owner of a token; `highest_priority` is that of its requests."""

    name: str
    scopes: frozenset[Scope]
    highest_priority: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the file; `digest` is the token's."""

    holder: Holder
    digest: bytes

    def line(self) -> str:
        priority = f" priority={self.holder.highest_priority}" if self.holder.highest_priority else ""
        return f"{self.holder.name} {','.join(sorted(self.holder.scopes))} sha256:{self.digest.hex()}{priority}"


def parse(text: str) -> list[Entry]:
    """The entries of a file's text. ValueError names every wrong line, but does not quote it."""
    entries: list[Entry] = []
    wrong: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if words := line.partition("#")[0].split():
                entries.append(_entry(words))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return entries


def _entry(words: list[str]) -> Entry:
    if len(words) not in (3, 4):
        raise ValueError("write NAME SCOPE[,SCOPE] sha256:HEX [priority=N]")
    name, scopes, digest, priority = [*words, "priority=0"][:4]
    key, _, highest = priority.partition("=")
    if key != "priority" or not _PRIORITY.fullmatch(highest):
        raise ValueError("after the hash there may be priority=N, the highest one of its requests, -100 to 100")
    if not _NAME.fullmatch(name):
        raise ValueError("a name has up to 64 letters, digits and ._@-")
    if not _HASH.fullmatch(digest):
        raise ValueError("a hash is sha256: and 64 digits 0-9a-f; `eightwinds token NAME` makes one")
    return Entry(Holder(name, parse_scopes(scopes), int(highest)), bytes.fromhex(digest.removeprefix("sha256:")))


def parse_scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"scopes are {' and '.join(Scope)}, with a comma between") from None


def new_token(name: str, scopes: Iterable[Scope], priority: int = 0) -> tuple[str, Entry]:
    """A new token, to be shown once, and its entry for the file. ValueError for a bad name."""
    token = _PREFIX + secrets.token_urlsafe(32)
    return token, _entry([name, ",".join(scopes), f"sha256:{_digest(token).hex()}", f"priority={priority}"])


def keep_secret(path: Path, token: str) -> None:
    """Write a token to a new file that only its owner can read. ValueError if the file exists or cannot be written."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(token + "\n")
    except FileExistsError:
        raise ValueError(f"{path} exists already: remove it, or name another file for the token") from None
    except OSError as error:
        raise ValueError(f"the token cannot be written to {path}: {error.strerror}") from None


def distrusted(status: os.stat_result, owners: Iterable[int]) -> str:
    """Why a token file cannot be trusted, or "": another user who can write to it could add a token of his own."""
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}: chown it to the user that serves"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}): chmod 600 it"
    return ""


def append(path: Path, entry: Entry) -> None:
    """Add an entry to a file; a new file is readable by its owner only. ValueError if that fails."""
    try:
        with open(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+", encoding="utf-8") as file:
            text = file.read()
            parse(text)  # never add to something else by mistake
            file.write(("" if text.endswith("\n") or not text else "\n") + entry.line() + "\n")
    except OSError as error:
        raise ValueError(f"the token file {path} cannot be written: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no token file: {error}") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def find(token: str, entries: Iterable[Entry]) -> Holder | None:
    """The caller with this token. Compares with every entry, so that the time taken says nothing about the match."""
    digest, found = _digest(token), None
    for entry in entries:
        if hmac.compare_digest(digest, entry.digest):
            found = entry.holder
    return found


class TokenFile:
    """The entries of a file, read again when it has changed. A file that becomes unreadable or wrong is reported once,
    and its last good state stays in force: an editor's half-written file neither locks all callers out nor lets a
    stranger in.
    """

    def __init__(self, path: Path) -> None:
        """ValueError if the file cannot be read or has no entry."""
        self._path = path
        try:
            self._stamp, self._entries = self._read()
        except OSError as error:
            raise ValueError(f"the token file {path} cannot be read: {error.strerror}") from None
        except ValueError as error:  # UnicodeDecodeError is one, too
            raise ValueError(f"the token file {path} is wrong: {error}") from None
        if not self._entries:
            raise ValueError(f"the token file {path} holds no token: `eightwinds token NAME --file {path}` adds one")

    def find(self, token: str) -> Holder | None:
        try:
            stamp = _stamp(os.stat(self._path))
        except OSError:
            stamp = ()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                _, self._entries = self._read()
                log.info("read %s again: %d tokens", self._path, len(self._entries))
            except (OSError, ValueError) as error:
                log.error("the token file %s is kept as it was: %s", self._path, error)
        return find(token, self._entries)

    def _read(self) -> tuple[tuple[int, ...], list[Entry]]:
        """Stamp and entries of one and the same file; OSError, or ValueError with what is wrong."""
        with self._path.open(encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if why := distrusted(status, {0, os.geteuid()}):
                raise ValueError(why)
            return _stamp(status), parse(file.read())


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode, status.st_uid
