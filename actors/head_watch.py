"""When a head that does not answer is to be ended: a decision on pulses, without Ray and without a clock."""

from enum import Enum


class Look(Enum):
    """The action that a long call to the head calls for."""

    ASK = "send a pulse request"
    WAIT = "wait for the pulse"
    END = "end the process, because its pulse has stopped"


class HeadWatch:
    """Follows the pulses of a head while a call to it is under way; times are in seconds. The call may take any time,
    but a head that is at it still answers its pulse: within `begin_seconds` first, then within `hang_seconds`.
    """

    def __init__(self, hang_seconds: float, begin_seconds: float) -> None:
        self._hang_seconds, self._begin_seconds = hang_seconds, begin_seconds
        self.begun()

    def begun(self) -> None:
        """A process is awaited that may not have answered before."""
        self._asked_at: float | None = None
        self.patience = self._begin_seconds

    def called_back(self) -> None:
        """The call under way has ended with an answer."""
        self.pulse_ended(answered=True)

    def pulse_ended(self, answered: bool) -> None:
        """The pulse request has ended. Without an answer the process is gone, as the call under way will say."""
        self._asked_at = None
        if answered:
            self.patience = self._hang_seconds

    def look(self, now: float) -> Look:
        """The action that is due; after ASK a pulse request counts as sent."""
        if self._asked_at is None:
            self._asked_at = now
            return Look.ASK
        return Look.END if now - self._asked_at > self.patience else Look.WAIT
