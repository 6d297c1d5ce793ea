"""What happens to a machine in its ordinary life: its clock is set, its address changes, files are cleaned away, a
supervisor and a person start at the same time. And what a neighbour may plant.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.integration.conftest import StartServer
from tests.integration.server import Server, wait_for

ROOT = Path(__file__).resolve().parents[2]
CLOCK = """import os, time
step, now, now_ns = float(os.environ["TEST_CLOCK_STEP"]), time.time, time.time_ns
time.time = lambda: now() + step
time.time_ns = lambda: now_ns() + int(step * 1e9)
"""


def answer(server: Server) -> str:
    with server.client() as client:
        wanted = text_request("Once upon a time", Options(max_tokens=8, temperature=0.0))
        return client.generate(wanted, timeout=30).outputs[0].text


@pytest.fixture
def clock(tmp_path: Path) -> dict[str, str]:
    """An environment whose Python has another clock, by TEST_CLOCK_STEP seconds."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TEST_CLOCK_STEP": "0"}


def test_everything_that_a_local_server_opens_is_on_loopback(server: Server) -> None:
    assert server.local is not None
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for pid in [server.process.pid, *server.local.pids()]
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 10, "nine actors, gcs, raylet, gateway"
    assert {host for host, _ in listening} == {"127.0.0.1"}


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="makes a network namespace")
def test_a_local_server_does_not_depend_on_the_outward_address() -> None:
    command = ["unshare", "--net", sys.executable, "-m", "tests.integration.address_change"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "same", done.stdout + done.stderr


def test_the_clock_may_be_set_forward_and_back(start: StartServer, clock: dict[str, str]) -> None:
    first = start(environment=clock | {"TEST_CLOCK_STEP": "7200"}).wait_ready()
    wanted, actors = answer(first), first.actors()
    for step in ("0", "14400"):
        first.environment["TEST_CLOCK_STEP"] = step
        assert "left alone" in first.command("down").stdout
    first.process.kill()
    first.process.wait()
    second = start(state=first.state, environment=clock | {"TEST_CLOCK_STEP": "-7200"}).wait_ready()
    assert answer(second) == wanted and second.actors() == actors, "taken over by one whose clock is four hours behind"
    with second.client() as client:
        assert all(e.replicas[0].state == pb.REPLICA_STATE_READY for e in client.status().experts)


def test_two_that_start_at_once_after_a_kill_do_not_end_each_others(start: StartServer) -> None:
    killed = start().wait_ready()
    wanted = answer(killed)
    killed.process.kill()
    killed.process.wait()
    both = [start(state=killed.state), start(state=killed.state)]
    for one in both:
        assert one._seen.wait(180) and one.ready, one.stderr()
    assert both[0].local is not None and both[1].local is not None
    assert both[0].local.folder != both[1].local.folder
    loser, winner = sorted(both, key=lambda one: one.actors() == killed.actors())
    assert loser.stop() == 0
    assert answer(winner) == wanted
    assert winner.stop() == 0 and winner.leftovers() == []


def test_without_a_record_the_living_is_left_alone_and_the_dead_is_found(start: StartServer) -> None:
    cleaned = start("--set", "cluster.namespace=cleaned").wait_ready()
    for record in cleaned.state.glob("*/*/cluster.json"):
        record.unlink()
    namespace = ("--set", "cluster.namespace=cleaned")
    assert cleaned.command("down", *namespace).returncode == 0 and answer(cleaned)
    cleaned.process.send_signal(signal.SIGKILL)
    cleaned.process.wait()
    assert "processes of a local Ray whose record is gone" in cleaned.command("doctor", *namespace).stdout
    assert "whose record was gone" in cleaned.command("down", *namespace).stdout
    wait_for(lambda: cleaned.leftovers() == [], "nothing left")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another user")
def test_what_another_user_plants_is_not_believed_and_not_followed(start: StartServer, tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    state = Path("/tmp") / f"ew-planted-{os.getpid()}"
    state.mkdir()
    state.chmod(0o1777)
    precious = tmp_path / "precious"
    precious.mkdir()
    record = f'{{"session": {victim.pid}, "started": 0.0, "folder": "{precious}", "record": "{precious}", '
    record += '"namespace": "eightwinds", "token": "", "owner_pid": 1, "owner_started": 0.0, "address": "1.2.3.4:5"}'
    script = f"mkdir -p {state}/eightwinds-{os.getuid()}/abcd && cd {state}/eightwinds-{os.getuid()}/abcd && "
    script += f"umask 0 && cat > cluster.json && ln -s {precious} link"
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script]
    try:
        subprocess.run(stranger, input=record, text=True, check=True)
        refused = start(state=state)
        assert refused.process.wait(30) == 1 and "belongs to user 65534" in refused.stderr()
        for command, code in (("down", 1), ("doctor", 1)):
            done = refused.command(command)
            assert done.returncode == code and "belongs to user 65534" in done.stdout + done.stderr
        assert victim.poll() is None and precious.is_dir()
    finally:
        victim.kill()
        victim.wait()
        shutil.rmtree(state, ignore_errors=True)


@pytest.mark.parametrize(
    ("setting", "environment", "reason"),
    [
        ("kv.memory_bytes=1000000000000", {}, "GB needed here"),
        ("kv.page_size=16", {"RAY_memory_usage_threshold": "0.01"}, "above 1% Ray ends processes: end what uses"),
    ],
)
def test_what_would_fail_for_want_of_memory_is_refused_at_once(
    setting: str, environment: dict[str, str], reason: str, start: StartServer
) -> None:
    refused = start("--set", setting, environment=environment)
    assert refused.process.wait(30) == 1 and reason in refused.stderr()
    assert refused.leftovers() == []


def test_too_few_open_files_are_refused_at_once(tmp_path: Path) -> None:
    command = f"ulimit -n 64; exec {sys.executable} -m cluster.cli serve --listen 127.0.0.1:0 --http 127.0.0.1:0"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "64 open files are allowed, 200 are needed: ulimit -n 4096" in done.stderr


def test_a_state_folder_that_is_too_long_is_refused_with_the_limit(start: StartServer) -> None:
    state = Path("/tmp") / ("ew-" + "x" * 30)
    state.mkdir(exist_ok=True)
    refused = start(state=state)
    assert refused.process.wait(30) == 1 and "is longer than" in refused.stderr()
