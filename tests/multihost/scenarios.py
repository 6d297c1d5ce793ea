"""The scenarios on three hosts by name, and how often each is played."""

from tests.multihost.disturbances import (
    add_host,
    blip,
    drain,
    kill_serve,
    kill_serve_with_standby,
    lossy,
    slow_link,
)
from tests.multihost.losses import (
    cut,
    cut_head_host,
    kill_head_host,
    kill_host,
    kill_raylet,
    kill_sole_host,
    reboot_sole_host,
)
from tests.multihost.ordinary import flood, full_disk, readdress
from tests.multihost.stage import Scenario

SCENARIOS: dict[str, tuple[Scenario, int, int]] = {  # how often: in full, in short
    "blip": (blip, 5, 1),
    "kill-host": (kill_host, 3, 1),
    "kill-raylet": (kill_raylet, 2, 0),
    "cut": (cut, 2, 0),
    "kill-sole-host": (kill_sole_host, 2, 0),
    "reboot-sole-host": (reboot_sole_host, 1, 0),
    "kill-head-host": (kill_head_host, 2, 0),
    "cut-head-host": (cut_head_host, 1, 0),
    "lossy": (lossy, 2, 0),
    "slow-link": (slow_link, 2, 0),
    "add-host": (add_host, 1, 0),
    "drain": (drain, 2, 0),
    "flood": (flood, 1, 0),
    "readdress": (readdress, 1, 0),
    "full-disk": (full_disk, 1, 0),
    "kill-serve": (kill_serve, 2, 0),
    "kill-serve-with-standby": (kill_serve_with_standby, 3, 1),
}
ON_RAY_UP: dict[str, Scenario] = {
    "blip": blip,
    "lossy": lossy,
    "slow-link": slow_link,
    "kill-host": kill_host,
    "cut": cut,
    "add-host": add_host,
    "drain": drain,
}
