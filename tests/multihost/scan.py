"""Print the TCP ports of a host that take a connection, by trying all of them. `python scan.py ADDRESS`"""

import select
import socket
import sys
import time
from collections.abc import Sequence

_AT_ONCE, _SECONDS = 4000, 0.5


def _taken(address: str, ports: Sequence[int]) -> list[int]:
    """The ports among these that take a connection within half a second."""
    waiting, poll, found = dict[int, tuple[int, socket.socket]](), select.poll(), list[int]()
    for port in ports:
        attempt = socket.socket()
        attempt.setblocking(False)
        attempt.connect_ex((address, port))
        poll.register(attempt, select.POLLOUT)
        waiting[attempt.fileno()] = port, attempt
    end = time.monotonic() + _SECONDS
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(1000 * left):
            poll.unregister(number)
            port, attempt = waiting.pop(number)
            if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(port)
            attempt.close()
    for _, attempt in waiting.values():
        attempt.close()
    return found


if __name__ == "__main__":
    every = range(1, 65536)
    print(
        *(port for begin in range(0, 65535, _AT_ONCE) for port in _taken(sys.argv[1], every[begin : begin + _AT_ONCE]))
    )
