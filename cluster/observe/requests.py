"""What all requests since the start have met, in plain numbers. Written on the event loop, read by any thread."""

import copy
from dataclasses import dataclass, field, replace

from cluster.observe.histogram import Histogram


@dataclass(slots=True)
class RequestStats:
    """Seconds until a request first ran, until its first token, between tokens and in all; tokens, and outputs by why
    they ended.
    """

    queue: Histogram = field(default_factory=Histogram)
    first_token: Histogram = field(default_factory=Histogram)
    gap: Histogram = field(default_factory=Histogram)
    total: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    generation_tokens: int = 0
    finished: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "RequestStats":
        """As it is now."""
        return copy.deepcopy(replace(self, finished=self.finished.copy()))  # a dict must not grow while it is walked
