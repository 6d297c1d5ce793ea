"""A client's side of TLS: the authorities that it believes, and the certificate that it shows."""

import re
from dataclasses import dataclass
from pathlib import Path

_CERTIFICATE, _KEY = re.compile(b"-----BEGIN CERTIFICATE-----"), re.compile(b"-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM: the authorities that may vouch for the server, None for those that browsers trust; a certificate of one's
    own and its key, for servers that ask for one.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


def read_tls(wanted: bool, ca: Path | None, certificate: Path | None, key: Path | None) -> Tls | None:
    """TLS if it is `wanted` or a file is given, else None. ValueError if the files are of no use."""
    if (certificate is None) != (key is None):
        raise ValueError("--cert and --key belong together")
    if not (wanted or ca or certificate):
        return None
    return Tls(_pem(ca, _CERTIFICATE), _pem(certificate, _CERTIFICATE), _pem(key, _KEY))


def _pem(path: Path | None, form: re.Pattern[bytes]) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if not form.search(content):
        raise ValueError(f"{path} holds no {'certificate' if form is _CERTIFICATE else 'private key'} in PEM")
    return content
