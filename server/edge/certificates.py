"""Reads certificates and keys from PEM files, and checks that they belong together. Knows nothing of gRPC."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from mind.errors import ConfigError

_LABELS = {"certificate": b"-----BEGIN CERTIFICATE-----", "private key": b"PRIVATE KEY-----"}


class Option(NamedTuple):
    """A file, with the option that names it."""

    name: str
    file: Path


@dataclass(frozen=True)
class Certificates:
    """The contents of the files of a certificate and its key."""

    certificate: bytes
    """The certificate chain, which begins with our own certificate."""
    key: bytes = field(repr=False)
    """The private key of the first certificate."""
    client_ca: bytes | None
    """Authorities that a peer's certificate is checked against; None if peers need no certificate."""


def read_certificates(certificate: Option, key: Option, client_ca: Option | None = None) -> Certificates:
    """Read certificate, key and authorities.

    Raises:
        ConfigError: a file cannot be read or is not PEM, or the key belongs to another certificate. The message names
            the option, the file and the fault.
    """
    files = (_read(certificate, "certificate"), _read(key, "private key"))
    authorities = read_authorities(client_ca) if client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate.file, key.file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"{key.name} {key.file}: is not the key of the certificate in {certificate.name} {certificate.file}"
            ) from None
        raise ConfigError(
            f"{certificate.name} {certificate.file}, {key.name} {key.file}: cannot be used: {error.reason or error}"
        ) from None
    except PermissionError:
        raise ConfigError(f"{key.name} {key.file}: is protected by a password") from None
    except OSError as error:
        raise ConfigError(f"{key.name} {key.file}: cannot be read: {error.strerror}") from None
    if files != (_read(certificate, "certificate"), _read(key, "private key")):
        raise ConfigError(f"{certificate.name} {certificate.file}: changed while it was read")
    return Certificates(*files, authorities)


def read_authorities(option: Option) -> bytes:
    """Read the certificates of authorities. Raises ConfigError as `read_certificates` does."""
    content = _read(option, "certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise ConfigError(f"{option.name} {option.file}: cannot be used: {error.reason or error}") from None
    return content


def _read(option: Option, what: Literal["certificate", "private key"]) -> bytes:
    try:
        content = option.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option.name} {option.file}: cannot be read: {error.strerror}") from None
    if _LABELS[what] not in content:
        raise ConfigError(f"{option.name} {option.file}: is not PEM: it has no {what}")
    return content


def _no_password() -> str:
    raise PermissionError  # otherwise OpenSSL would ask for a password at the terminal
