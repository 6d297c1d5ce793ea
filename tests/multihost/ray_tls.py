"""Ray's own connections in TLS, with a certificate for each host, as docs/security.md has it."""

import shutil
import time

from tests.certificates import Authority
from tests.chaos.stage import Row
from tests.chaos.streams import Tally
from tests.multihost.cluster import PORT, PlainCluster
from tests.multihost.hosts import Host, Hosts
from tests.multihost.operator_host import compare

NAME = "Ray speaks TLS"
_FILES = {"SERVER_CERT": "ray.crt", "SERVER_KEY": "ray.key", "CA_CERT": "ray-ca.pem"}
_ENVIRONMENT = {"RAY_USE_TLS": "1"} | {f"RAY_TLS_{kind}": f"/root/{name}" for kind, name in _FILES.items()}


def ray_tls() -> Row:
    """Two hosts serve so; a third one joins with a certificate, and not without. What is wrong is told as a failed
    request.
    """
    tally, begin = Tally(), time.monotonic()
    with Hosts(3) as hosts:
        stranger = hosts.all.pop()
        authority = Authority(hosts.all[0].disk / "home", "ray-ca")
        for host in hosts.all:
            _issue(authority, host)
        cluster = PlainCluster(hosts, ["head.resources={worker: 0.1}"], environment=_ENVIRONMENT)
        compare(tally, hosts.all[1], cluster.serves[0].address)
        cluster.close()
        join = ["eightwinds", "down", f"--ray-address={hosts.all[0].address}:{PORT}"]
        plain = {"RAY_AUTH_MODE": "disabled"}
        try:
            said = stranger.run(*join, environment=plain, timeout=90)
            tally.failed.append(f"a host without a certificate has joined: {said}")
        except RuntimeError as error:
            refusal = str(error).splitlines()[-1][:120]
        _issue(authority, stranger)
        said = stranger.run(*join, environment=plain | _ENVIRONMENT, timeout=90)
        if "removed actor" not in said:
            tally.failed.append(f"with a certificate it has not joined, either: {said}")
        hosts.all.append(stranger)
    return Row(NAME, 1, Tally(), tally, [(begin, time.monotonic())], f"a stranger is told: {refusal}")


def _issue(authority: Authority, host: Host) -> None:
    home, pair = host.disk / "home", authority.issue(names=[host.address])
    for source, name in zip((pair.certificate, pair.key, authority.file), _FILES.values(), strict=True):
        if source != home / name:
            shutil.copy(source, home / name)
    (home / _FILES["SERVER_KEY"]).chmod(0o600)
