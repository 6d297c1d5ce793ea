"""The token with which a Ray cluster is joined: a Ray without one runs any code that is sent to its ports."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.settings.address import split

ADVICE = (
    "make a token with `umask 077; ray get-auth-token --generate`, have it as ~/.ray/auth_token on every host, and "
    'start Ray and eightwinds with RAY_AUTH_MODE=token (docs/operations.md, "Ray\'s token")'
)


@dataclass(frozen=True, slots=True)
class RayAuth:
    """`mode` is the value for RAY_AUTH_MODE, `source` says where the token is, "" if there is none."""

    mode: str
    source: str

    @classmethod
    def of(cls, environ: Mapping[str, str], home: Path) -> "RayAuth":
        """The token that Ray would find, in its own order. Without RAY_AUTH_MODE a token is used if there is one."""
        source = "RAY_AUTH_TOKEN" if environ.get("RAY_AUTH_TOKEN") else environ.get("RAY_AUTH_TOKEN_PATH", "")
        if not source and (default := home / ".ray" / "auth_token").is_file():
            source = str(default)
        return cls(environ.get("RAY_AUTH_MODE", "").lower() or ("token" if source else "disabled"), source)

    def problem(self, address: str) -> tuple[str, str]:
        """A level ("ok", "warn", "fail") and a message about joining the Ray at this address."""
        if self.mode == "token" and not self.source:
            return "fail", "RAY_AUTH_MODE=token, but there is no token"
        if self.mode != "token":
            return "warn", f"Ray at {address} is joined without a token: whoever reaches its ports runs code there"
        return "ok", f"a token, from {self.source}"

    def refused(self, address: str, answers: bool, error: Exception) -> str:
        """Why Ray could not be joined. `answers` says whether its port does: Ray's own error is the same for both."""
        level, problem = self.problem(address)
        if level == "fail":
            return f"cannot join Ray at {address}: {problem}: {ADVICE}"
        if not answers:
            return f"cannot join Ray at {address}: {error}"
        ours = f"the token from {self.source} is not its own" if level == "ok" else "it asks for a token, we have none"
        return f"cannot join Ray at {address}, although it answers there: most likely {ours}: {ADVICE}"


def ray_auth() -> RayAuth:
    return RayAuth.of(os.environ, Path.home())


def choose_ray_auth() -> None:
    """Set RAY_AUTH_MODE, which Ray reads once, when it is imported."""
    os.environ["RAY_AUTH_MODE"] = ray_auth().mode


def answers(address: str) -> bool:
    try:
        with socket.create_connection(split(address), timeout=2.0):
            return True
    except (OSError, ValueError):
        return False
