"""Addresses of the form HOST:PORT."""

import ipaddress
import socket


def split(address: str) -> tuple[str, int]:
    """Split HOST:PORT into host (without the brackets of IPv6) and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address, which may lack a port, as clients may give it."""
    host = address.rpartition(":")[0].strip("[]") or address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name: it may be anyone's


def bind(address: str) -> socket.socket:
    """A bound TCP socket; OSError says which address and why not."""
    host, port = split(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(where)
            bound.listen(0)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror or error}") from None
    return bound
