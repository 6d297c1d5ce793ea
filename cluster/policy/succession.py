"""When the server that leads a cluster is gone, so that one that stands by may lead."""

import json
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True)
class Lead:
    """The record of a server that leads: the `term` counts servers, the `beat` its signs of life. `job` is Ray's id of
    its process, `place` is for people. It is `over` when the server has let go.
    """

    term: int
    job: str
    place: str
    beat: int = 0
    over: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def read_lead(record: bytes | None) -> Lead | None:
    """Fields that this version does not know are a newer one's."""
    known = {field.name for field in fields(Lead)}
    return None if record is None else Lead(**{k: v for k, v in json.loads(record).items() if k in known})


class Succession:
    """Follows the record by sightings; times are in seconds. A server whose process has ended for certain is gone at
    once, one that gives no sign for `patience` is too: its host is lost, cut off or frozen.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._seen: tuple[int, int] | None = None  # term and beat
        self._since = 0.0

    def is_open(self, lead: Lead | None, ended: bool, now: float) -> bool:
        """Whether another server may lead. `ended` says that the process of this one has ended for certain."""
        if lead is None or lead.over or ended:
            return True
        if (lead.term, lead.beat) != self._seen:
            self._seen, self._since = (lead.term, lead.beat), now
        return now - self._since > self._patience
