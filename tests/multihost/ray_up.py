"""`ray up ray_config.yaml` over ssh onto three hosts from nothing, a secured server there, asked from a fourth host.

The steps are those of docs/operations.md ("A cluster of several hosts"), word by word but for the set-up command:
hosts here have no way out, so they share this machine's environment instead of making one.
"""

import contextlib
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import psutil

from tests.certificates import Authority
from tests.chaos.stage import Row
from tests.chaos.streams import Tally
from tests.multihost.cluster import Serve, wait
from tests.multihost.hosts import PREFIX, ROOT, Host, Hosts

_CONFIG = "ray_config.yaml"
_SETUP = "make venv-runtime"
_ENVIRONMENT = {"RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
_PROMPTS = ("Once upon a time", "The rain", "My favourite condiment is", "1 + 1 =")
_GENERATE = "eightwinds generate --temperature 0 --max-tokens 40 --ignore-eos"
_OPEN = {"head": {22, 50051, 8000}, "worker": {22}}  # to strangers, behind the firewall
_RAY = ("raylet", "gcs_server", "ray::", "ray.autoscaler", "ray/dashboard")
NAME = "ray up, serve with TLS and tokens, ray down"


def lacks() -> str:
    """What this machine lacks for it beyond hosts, or ""."""
    tools = {"/usr/sbin/sshd": "openssh-server", "ssh-keygen": "openssh-client", "rsync": "rsync", "nft": "nftables"}
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    missing = [package for tool, package in tools.items() if shutil.which(tool, path=path) is None]
    return f"install {', '.join(missing)}" if missing else ""


def ray_up() -> Row:
    """Three hosts, and a fourth for operator and client. What is wrong is told as a failed request."""
    tally, notes, begin = Tally(), list[str](), time.monotonic()

    def note(what: str) -> None:
        notes.append(f"{what} {time.monotonic() - begin:.0f} s")
        print(notes[-1], file=sys.stderr, flush=True)

    with Hosts(4) as hosts:
        *cluster, operator = hosts.all
        _prepare(cluster, operator)
        note("four hosts at")
        _on(operator, f"cd /root/eightwinds && ray up -y --no-config-cache {_CONFIG}", 300)
        note("ray up done at")
        wait(lambda: _nodes(cluster[0]) == 3, "three nodes", lambda: _log(cluster[0]))
        note("three nodes at")
        serve = _Secured(cluster[0], "--ray-address=auto").wait_ready()
        note("ready at")
        for prompt, expected in zip(_PROMPTS, _texts_on_one_host(operator), strict=True):
            tally.done += 1
            if (text := _ask(operator, cluster[0], prompt)) != expected:
                tally.different += 1
                notes.append(f"{prompt!r} gives {text!r}, not {expected!r}")
        tally.failed += _strangers(operator, cluster)
        notes.append(_scanned(operator, cluster, tally))
        serve.terminate()
        down = _on(operator, f"cd /root/eightwinds && ray down -y {_CONFIG}", 120)
        note("ray down done at")
        wait(
            lambda: not any(_ray_left(host) for host in cluster),
            "the workers to leave",
            lambda: f"{down}\n{_left(cluster)}",
        )
        note("nothing left at")
    window = [(begin, time.monotonic())]
    return Row(NAME, 1, Tally(), tally, window, "; ".join(notes))


# ---- the hosts before `ray up` ----


def _prepare(cluster: list[Host], operator: Host) -> None:
    """Ssh from the operator to every host, the operator's checkout with its addresses, a token, certificates."""
    home = operator.disk / "home"
    operator.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    key = (home / ".ssh" / "id_ed25519.pub").read_text()
    for host in cluster:
        folder = host.disk / "home" / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "authorized_keys").write_text(key)
        (host.disk / "home" / ".bashrc").write_text("")
        host.run("sh", "-c", "mkdir -p /run/sshd && ssh-keygen -A >/dev/null && /usr/sbin/sshd -o UsePAM=no")
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, home / "eightwinds", ignore=ignored)
    text = (ROOT / _CONFIG).read_text(encoding="utf-8")
    for number, host in enumerate(cluster, 1):
        text = text.replace(f"192.0.2.{number}", host.address)
    assert _SETUP in text and "ssh_user: ubuntu" in text
    text = text.replace("ssh_user: ubuntu", "ssh_user: root").replace(_SETUP, f"ln -sfn {PREFIX} .venv")
    (home / "eightwinds" / _CONFIG).write_text(text, encoding="utf-8")
    _on(operator, "umask 077; ray get-auth-token --generate")
    head = cluster[0].disk / "home"
    authority = Authority(head)
    shutil.copy(authority.file, home / "ca.pem")
    pair = authority.issue(names=[cluster[0].address])
    pair.certificate.rename(head / "server.crt")
    pair.key.rename(head / "server.key")
    make = "cd /root && eightwinds token alice --file tokens --out alice.token"
    cluster[0].run("sh", "-c", make)
    shutil.copy(head / "alice.token", home / "alice.token")


def _on(host: Host, command: str, seconds: float = 120.0) -> str:
    return host.run("bash", "-c", command, environment=_ENVIRONMENT, timeout=seconds)


def _nodes(head: Host) -> int:
    """How many nodes take part, by `ray status`; 0 while it does not answer."""
    try:
        said = _on(head, "ray status")
    except RuntimeError:
        return 0
    active = said.partition("Active:")[2].partition("Pending:")[0]
    return sum(map(int, re.findall(r"^ (\d+) ", active, re.MULTILINE)))


def _log(head: Host) -> str:
    logs = sorted((head.disk / "tmp" / "ray").glob("session_2*/logs/monitor.*"))
    return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)


# ---- the server ----


class _Secured(Serve):
    """As an operator starts it on the head node, with TLS and tokens."""

    security = ("--cert=/root/server.crt", "--key=/root/server.key", "--token-file=/root/tokens")
    environment = _ENVIRONMENT


def _ask(host: Host, head: Host, prompt: str) -> str:
    """The text that a client on this host gets, with TLS and its token."""
    secured = "--ca /root/ca.pem --token-file /root/alice.token"
    return _on(host, f"{_GENERATE} {shlex.quote(prompt)} --address {head.address}:50051 {secured}")


def _texts_on_one_host(host: Host) -> list[str]:
    """The texts of a server of one process there, which starts and ends with this."""
    ready = "until grep -q ^ready /tmp/alone.log; do sleep 0.2; done"
    asked = "; echo '<end>'; ".join(f"{_GENERATE} {shlex.quote(prompt)}" for prompt in _PROMPTS)
    serve = "eightwinds serve --set runtime=in_process >/tmp/alone.log 2>&1 &"
    texts = _on(host, f"{serve} {ready}; {asked}; kill %1; wait").split("<end>\n")
    assert len(texts) == len(_PROMPTS), texts
    return texts


# ---- strangers ----


def _strangers(operator: Host, cluster: list[Host]) -> list[str]:
    """Callers without a token, TLS or the right CA, and a Ray without its token, are refused; returns what was not."""
    ask = f"eightwinds generate a --address {cluster[0].address}:50051 --max-tokens 1"
    join = f"HOME=/tmp RAY_AUTH_MODE=disabled eightwinds down --ray-address {cluster[0].address}:6379"
    wrong = []
    for what, command, words in (
        ("no token", f"{ask} --ca /root/ca.pem", "UNAUTHENTICATED"),
        ("no TLS", ask, "UNAVAILABLE"),
        ("a CA that did not sign", f"{ask} --tls", "UNAVAILABLE"),
        ("Ray without its token", join, "asks for a token"),
    ):
        try:
            wrong.append(f"{what}: it was let in: {_on(operator, command)[-300:]}")
        except RuntimeError as error:
            if words not in str(error):
                wrong.append(f"{what}: {error}")
    return wrong


def _scanned(operator: Host, cluster: list[Host], tally: Tally) -> str:
    """A scan of every port before and after the shipped firewall; the ports of before, for the note."""
    before = {host.name: _scan(operator, host) for host in cluster}
    rules = (ROOT / "examples" / "clusters" / "firewall.nft").read_text(encoding="utf-8")
    for number, host in enumerate(cluster, 1):
        rules = rules.replace(f"192.0.2.{number}", host.address)
    rules = rules.replace("198.51.100.0/24", f"{operator.address}/32")
    for host in cluster:
        (host.disk / "tmp" / "firewall.nft").write_text(rules, encoding="utf-8")
        host.run("nft", "-f", "/tmp/firewall.nft")
    for host in cluster:
        found, allowed = _scan(operator, host), _OPEN["head" if host is cluster[0] else "worker"]
        if found != allowed:
            tally.failed.append(f"{host.name} has {sorted(found)} open behind the firewall, not {sorted(allowed)}")
    tally.done += 1
    if not _ask(operator, cluster[0], _PROMPTS[0]):
        tally.failed.append("behind the firewall nothing is answered")
    counts = ", ".join(f"{len(ports)} on {name}" for name, ports in before.items())
    return f"ports open to strangers without the firewall: {counts}; with it 22, 50051, 8000 on the head, 22 on workers"


def _scan(operator: Host, host: Host) -> set[int]:
    """TCP ports of the host that take a connection from the operator's."""
    program = Path(__file__).with_name("scan.py")
    return set(map(int, operator.run("python", str(program), host.address).split()))


# ---- afterwards ----


def _ray_left(host: Host) -> list[str]:
    lines = list[str]()
    for process in host.processes():
        with contextlib.suppress(psutil.Error):  # it ends just now
            lines.append(" ".join(process.cmdline()))
    return [line[:100] for line in lines if any(name in line for name in _RAY)]


def _left(cluster: list[Host]) -> str:
    return "\n".join(f"{host.name}: {_ray_left(host)}" for host in cluster)
