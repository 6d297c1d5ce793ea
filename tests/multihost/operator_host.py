"""The host of whoever runs `ray up`, with ssh to the others, the checkout, a token for Ray, one for the server and the
certificate of its authority. Hosts have no way out, so they share this machine's environment instead of making one.
"""

import re
import shlex
import shutil

from tests.certificates import Authority
from tests.chaos.streams import Tally
from tests.multihost.hosts import PREFIX, ROOT, Host

CONFIG = "ray_config.yaml"
ENVIRONMENT = {"RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
PROMPTS = ("Once upon a time", "The rain", "My favourite condiment is", "1 + 1 =")
_SETUP = "make venv-runtime"
GENERATE = "eightwinds generate --temperature 0 --max-tokens 40 --ignore-eos"


def prepare(cluster: list[Host], operator: Host) -> None:
    """Ssh from the operator to every host, the operator's checkout with its addresses, a token, certificates."""
    home = operator.disk / "home"
    operator.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    key = (home / ".ssh" / "id_ed25519.pub").read_text()
    for host in cluster:
        let_in(host, key)
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, home / "eightwinds", ignore=ignored)
    text = (ROOT / CONFIG).read_text(encoding="utf-8")
    for number, host in enumerate(cluster, 1):
        text = text.replace(f"192.0.2.{number}", host.address)
    assert _SETUP in text and "ssh_user: ubuntu" in text
    text = text.replace("ssh_user: ubuntu", "ssh_user: root").replace(_SETUP, f"ln -sfn {PREFIX} .venv")
    (home / "eightwinds" / CONFIG).write_text(text, encoding="utf-8")
    on(operator, "umask 077; ray get-auth-token --generate")
    head = cluster[0].disk / "home"
    authority = Authority(head)
    shutil.copy(authority.file, home / "ca.pem")
    pair = authority.issue(names=[cluster[0].address])
    pair.certificate.rename(head / "server.crt")
    pair.key.rename(head / "server.key")
    make = "cd /root && eightwinds token alice --scope inference,cluster --file tokens --out alice.token"
    cluster[0].run("sh", "-c", make)
    shutil.copy(head / "alice.token", home / "alice.token")


def let_in(host: Host, key: str = "") -> None:
    """Start its ssh server, which lets this key in; it keeps the keys that it knows."""
    home = host.disk / "home"
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    if key:
        (home / ".ssh" / "authorized_keys").write_text(key)
        (home / ".bashrc").write_text("")
        (home / ".eightwinds-resources").write_text('{"worker": 1}')
    host.run("sh", "-c", "mkdir -p /run/sshd && ssh-keygen -A >/dev/null && /usr/sbin/sshd -o UsePAM=no")


def on(host: Host, command: str, seconds: float = 120.0) -> str:
    """What a command says there, with the environment that the documents name."""
    return host.run("bash", "-c", command, environment=ENVIRONMENT, timeout=seconds)


def join_by_hand(operator: Host, head: Host, host: Host) -> None:
    """Bring the project and Ray's token to a further host, and start Ray there."""
    ssh = "ssh -o StrictHostKeyChecking=accept-new"
    start = "RAY_AUTH_MODE=token RAY_worker_niceness=0 .venv/bin/ray start --disable-usage-stats"
    start += f" --address={head.address}:6379 --object-store-memory=200000000"
    for command in (
        f"rsync -a -e '{ssh}' --exclude .git --exclude .venv --exclude build ~/eightwinds {host.address}:",
        f"rsync -a -e '{ssh}' ~/.ray {host.address}:",
        f'{ssh} {host.address} "cd eightwinds && ln -sfn {PREFIX} .venv && {start}"',
    ):
        on(operator, command)


def nodes(head: Host) -> int:
    """How many nodes take part, by `ray status`; 0 while it does not answer."""
    try:
        said = on(head, "ray status")
    except RuntimeError:
        return 0
    active = said.partition("Active:")[2].partition("Pending:")[0]
    return sum(map(int, re.findall(r"^ (\d+) ", active, re.MULTILINE)))


def ask(host: Host, head: Host, prompt: str) -> str:
    """The text that a client on this host gets, with TLS and its token."""
    secured = "--ca /root/ca.pem --token-file /root/alice.token"
    return on(host, f"{GENERATE} {shlex.quote(prompt)} --address {head.address}:50051 {secured}")


def texts_on_one_host(host: Host) -> list[str]:
    """The texts of a server of one process there, which starts and ends with this."""
    ready = "until grep -q ^ready /tmp/alone.log; do sleep 0.2; done"
    asked = "; echo '<end>'; ".join(f"{GENERATE} {shlex.quote(prompt)}" for prompt in PROMPTS)
    serve = "eightwinds serve --set runtime=in_process >/tmp/alone.log 2>&1 &"
    texts = on(host, f"{serve} {ready}; {asked}; kill %1; wait").split("<end>\n")
    assert len(texts) == len(PROMPTS), texts
    return texts


def compare(tally: Tally, host: Host, address: str) -> None:
    """Ask a server without TLS and tokens from this host, and compare its texts with those of one process there."""
    for prompt, expected in zip(PROMPTS, texts_on_one_host(host), strict=True):
        tally.done += 1
        tally.different += on(host, f"{GENERATE} {shlex.quote(prompt)} --address {address}") != expected
