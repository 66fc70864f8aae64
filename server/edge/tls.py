"""TLS of the service. Before every handshake, gRPC gets the present contents of the certificate files."""

from pathlib import Path

import grpc

from server.edge.certificates import Certificates, Option, read_certificates
from server.edge.reloaded import OnRead, Reloaded


def server_credentials(
    certificate: Path, key: Path, client_ca: Path | None, on_read: OnRead = lambda _: None
) -> grpc.ServerCredentials:
    """Make credentials that follow their files. With `client_ca`, callers need a certificate of one of its authorities.

    `on_read` is called with whether the files could be used.

    Raises:
        ConfigError: the files cannot be used.
    """
    files = [certificate, key, *([client_ca] if client_ca else [])]
    authorities = Option("--tls-client-ca", client_ca) if client_ca else None
    reloaded = Reloaded(
        files,
        lambda: read_certificates(Option("--tls-cert", certificate), Option("--tls-key", key), authorities),
        on_read,
    )

    def changed() -> grpc.ServerCertificateConfiguration | None:  # on a thread of gRPC
        return _configuration(reloaded.value) if reloaded.look() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(reloaded.value),
        changed,  # type: ignore[arg-type]  # the stubs do not know that None stands for no change
        require_client_authentication=client_ca is not None,
    )


def _configuration(read: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(read.key, read.certificate)], read.client_ca)
