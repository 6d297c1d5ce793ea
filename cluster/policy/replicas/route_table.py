"""What the head routes to, and what to tell it next. Pure: times are arguments, on one clock, in seconds."""

from collections.abc import Collection, Mapping

from cluster.policy.replicas.backoff import Backoff

Key = tuple[int, int]  # expert, slot


class Publication:
    """Incarnations by key, as the head knows them. One that failed its warm-up call is cold: where its expert has
    another it is left out for a while, so that whoever comes or goes meanwhile does not wait for it, too.
    """

    def __init__(self, known: Mapping[Key, str]) -> None:
        """`known` is what the head routes to already."""
        self._known: dict[Key, str] | None = dict(known)  # None: the head did not answer, and may know either
        self._cold: Backoff[Key] = Backoff()

    def due(self, routed: Mapping[Key, str], now: float) -> dict[Key, str] | None:
        """What to tell the head so that it routes to these; None if there is nothing new."""
        self._cold.keep(routed.keys())  # who is not there has ended, and another in its place begins anew
        paused = {key for key in routed if self._cold.pauses(key, now)}
        served = {expert for expert, _ in routed.keys() - paused}
        wanted = {key: incarnation for key, incarnation in routed.items() if key not in paused or key[0] not in served}
        return None if wanted == self._known else wanted

    def told(self, wanted: Mapping[Key, str], cold: Collection[Key] | None, now: float) -> list[Key]:
        """The head was told, and answered which are cold, or did not answer. Answers those that it routes to now."""
        if cold is None:
            self._known = None
            return []
        self._known = {key: incarnation for key, incarnation in wanted.items() if key not in cold}
        for key in cold:
            self._cold.failed(key, now)
        for key in self._known:
            self._cold.cleared(key)
        return list(self._known)

    def may_reach(self, key: Key) -> bool:
        """Whether the head may still route to it."""
        return self._known is None or key in self._known
