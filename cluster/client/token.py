"""Where a client gets its bearer token from."""

from collections.abc import Mapping
from pathlib import Path

TOKEN_VARIABLE = "EIGHTWINDS_TOKEN"


def read_token(file: Path | None, environment: Mapping[str, str]) -> str:
    """The token in a file, else in EIGHTWINDS_TOKEN, else "". ValueError if the file holds no token."""
    source, token = TOKEN_VARIABLE, environment.get(TOKEN_VARIABLE, "")
    if file is not None:
        source = str(file)
        try:
            token = file.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"the token file {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"the token file {file} holds no text") from None
    token = token.strip()
    if "sha256:" in token:
        raise ValueError(f"{source} holds the server's hashes; clients need a file with the token itself")
    if (file is not None and not token) or not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError(f"{source} holds no token: it must be one line of printable ASCII")
    return token
