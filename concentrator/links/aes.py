"""AES as the PLC protocols want it handed in: one block under one key."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def aes(key: bytes) -> Callable[[bytes], bytes]:
    """The function that encrypts one block of 16 octets with a key."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 what CMAC and EAX are built on
    return encryptor.update
