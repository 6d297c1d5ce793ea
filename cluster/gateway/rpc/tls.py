"""TLS on the gRPC port: whom a new connection gets to see, and whose certificate it must show."""

from typing import Any

import grpc

from cluster.settings.certificates import Certificates, Identity


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """gRPC asks at each handshake whether the identity has changed; connections that are open stay as they are."""
    shown = certificates.current()

    def changed() -> Any:  # the stubs do not know that None means no
        nonlocal shown
        if (now := certificates.current()) is shown:
            return None
        shown = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown), changed, require_client_authentication=certificates.asks_clients
    )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.chain)], identity.client_ca)
