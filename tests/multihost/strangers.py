"""Callers from another host who should not be let in, and the ports that they find open."""

import sys
from collections import Counter
from pathlib import Path

from tests.chaos.streams import Tally
from tests.multihost.hosts import ROOT, Host
from tests.multihost.operator_host import PROMPTS, ask, on

_OPEN = {"head": {22, 50051, 8000}, "worker": {22}}  # to strangers, behind the firewall


def refused(operator: Host, cluster: list[Host]) -> list[str]:
    """Callers without a token, TLS or the right CA, and a Ray without its token, are refused; returns what was not."""
    generate = f"eightwinds generate a --address {cluster[0].address}:50051 --max-tokens 1"
    join = f"HOME=/tmp RAY_AUTH_MODE=disabled eightwinds down --ray-address {cluster[0].address}:6379"
    wrong = []
    for what, command, words in (
        ("no token", f"{generate} --ca /root/ca.pem", "UNAUTHENTICATED"),
        ("no TLS", generate, "UNAVAILABLE"),
        ("a CA that did not sign", f"{generate} --tls", "UNAVAILABLE"),
        ("Ray without its token", join, "asks for a token"),
    ):
        try:
            wrong.append(f"{what}: it was let in: {on(operator, command)[-300:]}")
        except RuntimeError as error:
            if words not in str(error):
                wrong.append(f"{what}: {error}")
    return wrong


def scanned(operator: Host, cluster: list[Host], tally: Tally) -> str:
    """A scan of every port before and after the shipped firewall; the ports of before, for the note."""
    before = {host.name: _scan(operator, host) for host in cluster}
    answers = Counter[str]()
    for host in cluster:
        answers.update(_knocked(operator, host, before[host.name] - _OPEN["head"]))
    tally.failed += [f"without Ray's token {answer}" for answer in answers if answer.endswith("answers")]
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
    if not ask(operator, cluster[0], PROMPTS[0]):
        tally.failed.append("behind the firewall nothing is answered")
    counts = ", ".join(f"{len(ports)} on {name}" for name, ports in before.items())
    knocks = ", ".join(f"{count} x {answer}" for answer, count in answers.most_common())
    return (
        f"ports open to strangers without the firewall: {counts}; to a call without Ray's token they say: {knocks}; "
        "with the firewall 22, 50051, 8000 are open on the head, 22 on workers"
    )


def _knocked(operator: Host, host: Host, ports: set[int]) -> list[str]:
    """Each port's answer to a caller without Ray's token."""
    program = Path(__file__).with_name("knock.py")
    said = operator.run("python", str(program), host.address, *map(str, sorted(ports)), timeout=300)
    print(f"{host.name}: {said}", file=sys.stderr, flush=True)
    return [line.partition(" ")[2] for line in said.splitlines()]


def _scan(operator: Host, host: Host) -> set[int]:
    """TCP ports of the host that take a connection from the operator's."""
    program = Path(__file__).with_name("scan.py")
    return set(map(int, operator.run("python", str(program), host.address).split()))
