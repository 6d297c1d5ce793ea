"""What a scenario is given."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.stage import Row
from tests.chaos.streams import Streams, Tally
from tests.multihost.cluster import Cluster

CALM_SECONDS = 2.0  # of undisturbed streams before and after what happens


@dataclass(frozen=True, slots=True)
class Stage:
    """A server on several hosts, its streams, and what they met while nothing happened."""

    cluster: Cluster
    streams: Streams
    quiet: Tally


Scenario = Callable[[Stage, int], Row]  # the stage, and how often
