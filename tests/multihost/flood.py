"""Run on a host of its own: strangers flood a server for so long. `python flood.py ADDRESS SECONDS`"""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.abuse import strangers
from tests.abuse.target import Target

_FLOODS = (
    strangers.resets,
    strangers.expanding_headers,
    strangers.unfinished_messages,
    strangers.half_requests,
    strangers.health_watches,
)


def main() -> None:
    """All of them in turns; two at a time, because this machine's cores are the server's, too."""
    address, seconds = sys.argv[1], float(sys.argv[2])
    host, _, _ = address.rpartition(":")
    target = Target(address, f"{host}:8000")
    with ThreadPoolExecutor(2) as pool:
        each = seconds * 2 / len(_FLOODS)
        for flood, said in zip(_FLOODS, pool.map(lambda flood: flood(target, each), _FLOODS), strict=True):
            print(f"{flood.__name__}: {said}", flush=True)


if __name__ == "__main__":
    main()
