"""Whether Ray's own processes live, which nobody starts anew."""

import subprocess
import sys

import psutil

from cluster.launch.local_ray.daemon import broken


def test_the_ground_is_broken_once_one_of_its_processes_has_ended_and_says_which() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ground = {"raylet": psutil.Process(child.pid), "gcs_server": psutil.Process()}
    assert broken({}) == broken(ground) == ""
    child.kill()
    child.wait()
    assert broken(ground) == "Ray's own raylet of this machine has ended"
