"""Checks the files that options name: certificates, keys and tokens. All are read once before anything starts.

So a file that cannot be used is reported once for any number of server processes.
"""

from server.edge.certificates import Option, read_authorities, read_certificates
from server.edge.tokens import read_tokens
from server.settings import Settings


def check_files(settings: Settings) -> None:
    """Read every file that an option names. Raises ConfigError, which names the option, the file and the fault."""
    if settings.tls_cert and settings.tls_key:
        authorities = Option("tls_client_ca", settings.tls_client_ca) if settings.tls_client_ca else None
        read_certificates(Option("tls_cert", settings.tls_cert), Option("tls_key", settings.tls_key), authorities)
    if settings.milvus_ca_cert:
        read_authorities(Option("milvus_ca_cert", settings.milvus_ca_cert))
    if settings.milvus_client_cert and settings.milvus_client_key:
        read_certificates(
            Option("milvus_client_cert", settings.milvus_client_cert),
            Option("milvus_client_key", settings.milvus_client_key),
        )
    for name in ("token_file", "admin_token_file"):
        if file := getattr(settings, name):
            read_tokens(file, name)
