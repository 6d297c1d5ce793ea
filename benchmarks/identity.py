"""How often a request in a crowd gets the very tokens that it gets alone, by dtype: the demo checkpoint on a local Ray.

    python -m benchmarks.identity

fp32 must be 100 %. bf16 differs where attention is computed in another shape: in chunks, after a preemption, from a
cached prefix. Outputs are compared whole: one differing token counts the output as different.
"""

import random

from benchmarks.report import publish
from benchmarks.server import serving
from cluster.client.client import Client
from tests.mixed import Answer, ask, ask_all, some_request

_COUNT = 200
_ROOMY: tuple[str, ...] = ()
_TIGHT = ("kv.memory_bytes={}", "scheduler.max_tokens_per_step=64", "scheduler.max_running_requests=24")
_TIGHT_PAGES = 20
_PAGE_BYTES = {"float32": 98_304, "bfloat16": 49_152}  # of the demo checkpoint, 16 tokens a page


def main() -> None:
    """Run and publish."""
    rng, rows = random.Random(2026), []
    requests = [some_request(rng) for _ in range(_COUNT)]
    for dtype, page in _PAGE_BYTES.items():
        tight = tuple(setting.format(_TIGHT_PAGES * page) for setting in _TIGHT)
        for name, settings in (("as it comes", _ROOMY), ("20 pages, 64 tokens a step", tight)):
            with serving(f"model.dtype={dtype}", *settings) as server, Client(server.address) as client:
                alone = [ask(client, request) for request in requests]
                crowd = ask_all(client, requests, 7)
                again = [ask(client, request) for request in requests]
            rows.append([dtype, name, *_same(alone, crowd), *_same(alone, again)])
    header = ("dtype", "server", "requests", "outputs", "tokens before", "requests", "outputs", "tokens before")
    note = (
        f"{_COUNT} mixed requests (greedy and seeded, n = 1..4, penalties, stop strings, shared prefixes): alone, then "
        "48 at once, then alone again. Columns 3 to 5 compare the crowd with alone, 6 to 8 alone again with alone; "
        "`tokens before` is the share of tokens that come before an output's first difference."
    )
    publish("identity", "Same tokens in a crowd as alone", header, rows, note)


def _same(wanted: list[Answer], found: list[Answer]) -> list[str]:
    """Share of requests, outputs, and tokens before a difference, that are the same."""
    pairs = [(a[1], b[1]) for x, y in zip(wanted, found, strict=True) for a, b in zip(x, y, strict=True)]
    whole = sum(x == y for x, y in zip(wanted, found, strict=True)) / len(wanted)
    outputs = sum(a == b for a, b in pairs) / len(pairs)
    before = sum(_common(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    return [f"{100 * share:.2f} %" for share in (whole, outputs, before)]


def _common(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


if __name__ == "__main__":
    main()
