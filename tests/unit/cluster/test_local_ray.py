"""Who owns a local Ray; the rest of it is tested with a real one in tests/integration/test_lifecycle.py."""

import os
import subprocess
import sys

import psutil

from cluster.local_ray import LocalRay


def test_a_killed_serve_that_nobody_waited_for_counts_as_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = psutil.Process(child.pid)
    local = LocalRay(0, 0.0, "", "eightwinds", "", child.pid, process.create_time())
    assert local.owned()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert not local.owned()
    child.wait()
    assert not local.owned()
