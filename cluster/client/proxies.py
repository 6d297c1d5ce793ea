"""HTTP proxies that the environment names. gRPC sends whatever is not named in `no_proxy` through one, what goes to
this machine included, which no proxy can reach.
"""

from collections.abc import Mapping

from cluster.settings.address import is_loopback

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")  # those that gRPC reads; the first one that is set counts
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def proxy_options(address: str) -> list[tuple[str, int]]:
    """Arguments of gRPC's channel to an address: to this machine without a proxy, elsewhere as the environment says."""
    return [("grpc.enable_http_proxy", 0 if is_loopback(f"{_host(address)}:0") else 1)]


def _host(address: str) -> str:
    """The host of what gRPC takes for an address: HOST:PORT, HOST alone, or dns:///HOST:PORT."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    return host if host and port.isdigit() else address.rpartition("/")[2]


def proxy_of(address: str, environment: Mapping[str, str]) -> str:
    """The variable that names the proxy on the way to an address, or "" if there is none."""
    host = _host(address).strip("[]")
    if is_loopback(f"{host}:0"):
        return ""
    excepted = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    if any(part == "*" or host.endswith(part) for part in map(str.strip, excepted.split(",")) if part):
        return ""
    return next((name for name in _VARIABLES if environment.get(name)), "")
