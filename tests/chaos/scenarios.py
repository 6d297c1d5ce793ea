"""The scenarios by name, with how often each happens: in full, and in the short form."""

from tests.chaos.elasticity import drain_node, kill_node, scale
from tests.chaos.failures import (
    freeze_head,
    freeze_one_of_two,
    kill_every_copy,
    kill_head,
    kill_one_of_two,
    kill_serve,
    kill_sole_copy,
    slow_one_of_two,
)
from tests.chaos.stage import Scenario
from tests.chaos.storm import storm

SCENARIOS: dict[str, tuple[Scenario, int, int]] = {
    "kill-one-of-two": (kill_one_of_two, 100, 3),
    "freeze": (freeze_one_of_two, 10, 1),
    "slow": (slow_one_of_two, 10, 1),
    "kill-sole-copy": (kill_sole_copy, 20, 1),
    "kill-every-copy": (kill_every_copy, 10, 0),
    "kill-head": (kill_head, 10, 1),
    "freeze-head": (freeze_head, 2, 0),
    "kill-serve": (kill_serve, 6, 1),
    "scale": (scale, 50, 1),
    "storm": (storm, 60, 8),
    "drain-node": (drain_node, 2, 0),
    "kill-node": (kill_node, 3, 0),
}
