"""Certificate authorities of tests, and what they sign."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from cluster.settings.certificates import Certificates


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    def replace(self, other: "Pair") -> None:
        """Have the files of this one hold the other, one after the other, as certbot and operators do."""
        for mine, new in ((self.certificate, other.certificate), (self.key, other.key)):
            copy = mine.with_suffix(".new")
            copy.write_bytes(new.read_bytes())
            copy.chmod(0o600)
            copy.replace(mine)


class Authority:
    """`file` is its certificate; its signatures are for 127.0.0.1 and localhost."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder, self._name, self._count = folder, name, 0
        self._ca = trustme.CA(organization_name=name)
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, until: datetime | None = None, names: Sequence[str] = ()) -> Pair:
        """A new certificate, valid for a month or until then, for these names, too."""
        self._count += 1
        until = until or datetime.now(UTC) + timedelta(days=30)
        signed = self._ca.issue_cert(
            "127.0.0.1", "localhost", *names, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=until
        )
        made = Pair(*(self._folder / f"{self._name}-{self._count}.{end}" for end in ("crt", "key")))
        for position, pem in enumerate(signed.cert_chain_pems):
            pem.write_to_path(str(made.certificate), append=position > 0)
        signed.private_key_pem.write_to_path(str(made.key))
        made.key.chmod(0o600)
        return made


def certificates(of: Pair, client_ca: Path | None = None) -> Certificates:
    return Certificates(of.certificate, of.key, client_ca)
