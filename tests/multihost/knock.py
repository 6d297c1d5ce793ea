"""Call Ray's services without its token on each of these ports, and print what comes of it.

`python knock.py ADDRESS PORT...`
"""

import http.client
import sys
from typing import Any

import grpc

_METHODS = (  # one of each service; whoever serves none of them answers UNIMPLEMENTED
    "NodeInfoGcsService/CheckAlive",
    "NodeManagerService/GetNodeStats",
    "CoreWorkerService/GetCoreWorkerStats",
    "ObjectManagerService/FreeObjects",
    "RayletDriver/ClusterInfo",
    "ReporterService/GetTraceback",
    "RuntimeEnvService/DeleteRuntimeEnvIfPossible",
)
_SECONDS = 3.0


def knock(address: str, port: int) -> str:
    """The status of the first service that is there, else of HTTP, else silent."""
    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        for method in _METHODS:
            try:
                call: Any = channel.unary_unary(f"/ray.rpc.{method}")  # of bytes, which its type does not allow for
                call(b"", timeout=_SECONDS)
                return f"{method} answers"
            except grpc.RpcError as error:
                code = error.code().name
                if code not in ("UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"):
                    return str(code)
                if code != "UNIMPLEMENTED":
                    return _ask_http(address, port)
    return "UNIMPLEMENTED"


def _ask_http(address: str, port: int) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return f"HTTP {connection.getresponse().status}"
    except (OSError, http.client.HTTPException):
        return "silent"
    finally:
        connection.close()


def main() -> None:
    """A line for each port."""
    address, *ports = sys.argv[1:]
    for port in map(int, ports):
        print(port, knock(address, port), flush=True)


if __name__ == "__main__":
    main()
