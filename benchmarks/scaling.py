"""The effect of scaling by load: computed from the real model's expert shares, and live on the demo model.

    python -m benchmarks.scaling simulate [--expert-shares FILE ...]
    python -m benchmarks.scaling live

`simulate` is arithmetic, and nothing runs: a layer takes as long as its busiest replica, which needs time in proportion
to its rows, and the policy decides round by round until it rests. FILE is CSV: layer, then each expert's share of the
layer's rows. The skew of one expert by four is synthetic. `live` sends prompts that one expert gets most rows of, and
lets the policy follow: its thresholds are set around what is measured first, since the demo's experts are tiny.
"""

import argparse
import asyncio
import csv
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.load import Job, Load
from benchmarks.report import publish
from benchmarks.server import serving
from cluster.client.client import Client
from cluster.policy.replicas.scaling import ScalingPolicy, Use, decide
from protos.eightwinds.v1 import inference_pb2 as pb

_POLICY = ScalingPolicy(True, 1, 4, 8, 0.8, 0.3, 0.0)
_EXPERTS = 8

Shares = list[list[float]]  # by layer and expert


# ---- computed ----


def read_shares(file: Path) -> Shares:
    """Of each layer, summing to 1."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [[float(value) for value in row[1:]] for row in csv.reader(line for line in lines if line[0] != "l")]
    return [[value / sum(row) for value in row] for row in rows]


def skewed(factor: float, layers: int = 32) -> Shares:
    """Synthetic: expert 0 gets `factor` times what each other gets."""
    row = [factor, *[1.0] * (_EXPERTS - 1)]
    return [[value / sum(row) for value in row]] * layers


def seconds(shares: Shares, replicas: Sequence[int]) -> float:
    """Time of all layers for rows worth 1 a layer."""
    return sum(max(share / count for share, count in zip(row, replicas, strict=True)) for row in shares)


def plan(shares: Shares, total: int) -> list[int]:
    """The numbers at which the policy comes to rest with so many replicas in all."""
    policy, replicas = dataclasses.replace(_POLICY, max_total_replica_count=total), [1] * _EXPERTS
    while True:
        every = seconds(shares, replicas)
        busy = [sum(row[e] for row in shares) / count / every for e, count in enumerate(replicas)]
        changes = decide(policy, [Use(e, n, n, busy[e]) for e, n in enumerate(replicas)])
        if not changes:
            return replicas
        replicas = [changes.get(e, count) for e, count in enumerate(replicas)]


def simulate(files: Sequence[Path]) -> None:
    """Print and keep the plans."""
    loads = {file.stem: read_shares(file) for file in files} | {"synthetic: one expert 4 x": skewed(4.0)}
    rows = []
    for name, shares in loads.items():
        one = seconds(shares, [1] * _EXPERTS)
        for total in (8, 9, 10, 12, 16):
            replicas = plan(shares, total)
            gain, ideal = one / seconds(shares, replicas), one / (len(shares) / sum(replicas))
            used = " ".join(map(str, replicas))
            rows.append([name, str(total), used, f"{gain:.2f} x", f"{ideal:.2f} x", f"{gain / ideal:.0%}"])
    note = "Ideal: as many replicas as the plan has, all of them busy all the time. Computed, not measured."
    header = ("load", "allowed", "replicas of experts 0 to 7", "gain", "ideal", "of it")
    publish("scaling_simulated", "What the policy makes of a skewed load", header, rows, note)


# ---- live ----


def live(hot: int = 3, settle: float = 90.0) -> None:
    """A hot expert goes up under skewed prompts, and down again after them."""
    rows: list[list[str]] = []
    with serving() as server, Client(server.address) as client:
        prompt = _hot_prompt(client, hot)
        before = _busy(server.address, client, prompt, 10.0)
        up = (before[hot] + max(b for e, b in enumerate(before) if e != hot)) / 2
        client.set_policy(
            {
                "enabled": True,
                "max_replica_count": 2,
                "scale_up_utilization": up,
                "scale_down_utilization": up / 4,
                "cooldown": 10,
            }
        )
        begin = time.monotonic()

        def note(what: str) -> list[int]:
            counts = [expert.desired_replica_count for expert in client.status().experts]
            rows.append([f"{time.monotonic() - begin:.0f}", what, " ".join(map(str, counts))])
            return counts

        note("policy enabled")
        end = time.monotonic() + settle
        while time.monotonic() < end and client.status().experts[hot].desired_replica_count == 1:
            _busy(server.address, client, prompt, 5.0)
        after = _busy(server.address, client, prompt, 10.0)
        grown = note("under load")
        end = time.monotonic() + settle
        while time.monotonic() < end and client.status().experts[hot].desired_replica_count > 1:
            time.sleep(1.0)
        shrunk = note("load ended")
    numbers = f"expert {hot} busy {before[hot]:.2%} before and {after[hot]:.2%} with its second replica; "
    numbers += f"others at most {max(b for e, b in enumerate(before) if e != hot):.2%}; threshold {up:.2%}"
    publish(
        "scaling_live", f"Prompts that expert {hot} gets most rows of", ("s", "when", "replicas wanted"), rows, numbers
    )
    if grown[hot] != 2 or shrunk[hot] != 1:
        raise SystemExit("the hot expert was not scaled up and down again")


def _hot_prompt(client: Client, hot: int) -> tuple[int, ...]:
    """Ids that this expert gets most rows of, by the traces of prompts of one id each."""
    found = []
    for token in range(300, 1500, 3):
        request = pb.GenerateRequest(
            prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[token] * 4)),
            sampling=pb.Sampling(temperature=0.0),
            stopping=pb.Stopping(max_tokens=1),
            output=pb.OutputOptions(trace=True),
        )
        routing = client.generate(request).trace.routing
        found.append((sum(layer.expert_tokens[hot] for layer in routing), token))
    best = [token for _, token in sorted(found, reverse=True)[:8]]
    return tuple(best * 24)


def _busy(address: str, client: Client, prompt: tuple[int, ...], span: float) -> list[float]:
    """Utilization of each expert while 16 clients send such prompts for `span` seconds."""

    async def send() -> None:
        load = Load(address)
        jobs = (Job((300 + number % 1000, *prompt), 2) for number in range(10**9))
        await load.closed_loop(jobs, 16, span)
        await load.close()

    with ThreadPoolExecutor(1) as pool:
        window = pool.submit(lambda: next(client.watch_load(span)))
        asyncio.run(send())
        return [load.utilization for load in window.result().experts]


def main() -> None:
    """Run and publish."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["simulate", "live"])
    parser.add_argument("--expert-shares", type=Path, nargs="*", default=[], metavar="FILE")
    arguments = parser.parse_args()
    if arguments.kind == "live":
        live()
    else:
        simulate(arguments.expert_shares)


if __name__ == "__main__":
    main()
