"""TLS as this concentrator uses it where it is the client: brokers, head-ends, file servers."""

from __future__ import annotations

import ssl


def client_context(ca_file: str, certificate_file: str, private_key_file: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, the server's name checked; "" for the system's authorities, and for no certificate of ours.

    Raises:
        OSError, ssl.SSLError: a file cannot be read, or is not what it should be.
    """
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate_file:
        context.load_cert_chain(certificate_file, private_key_file or None)
    return context
