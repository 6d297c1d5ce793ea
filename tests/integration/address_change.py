"""Run in a network namespace of its own: serves, and answers still when the machine's outward address has changed, and
when there is none. Prints `same` if all three answers are.

    unshare --net python -m tests.integration.address_change
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from tests.integration.server import Server
from tests.integration.small import EXPERTS, write_small


def main() -> None:
    """Serve, and change the address under it."""
    ip("link set lo up")
    ip("link add outward type veth peer name beyond")
    ip("link set beyond up")
    ip("link set outward up")
    ip("address add 10.9.9.1/24 dev outward")
    ip("route add default dev outward")
    folder = Path(tempfile.mkdtemp(prefix="ew-small-"))
    server = Server("--model", str(write_small(folder)), "--set", f"experts.count={EXPERTS}")
    try:
        server.wait_ready()
        answers = [ask(server)]
        ip("address add 10.9.8.7/24 dev outward")
        ip("address del 10.9.9.1/24 dev outward")
        answers.append(ask(server))
        ip("link del outward")
        answers.append(ask(server))
        server.replace()  # the next one takes over, without any address
        server.wait_ready()
        answers.append(ask(server))
        print("same" if len(set(answers)) == 1 and server.stop() == 0 else answers, flush=True)
    finally:
        server.close()
        shutil.rmtree(folder)


def ask(server: Server) -> str:
    """What it answers, within seconds."""
    with server.client() as client:
        wanted = text_request("Once upon a time", Options(max_tokens=8, temperature=0.0))
        return client.generate(wanted, timeout=20).outputs[0].text


def ip(words: str) -> None:
    """Change this namespace's network."""
    subprocess.run(["ip", *words.split()], check=True)


if __name__ == "__main__":
    main()
