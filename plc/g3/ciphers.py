"""CMAC (RFC 4493) and EAX (Bellare, Rogaway, Wagner 2004) on an AES block function that is handed in.

`aes` below is a function that takes a key of 16 octets and gives the function that encrypts one block of 16
octets: `cryptolib.aes(key, 1).encrypt` on MicroPython, a library's AES-ECB on CPython. No error shows a key.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Block = Callable[[bytes], bytes]
    Aes = Callable[[bytes], Block]

BLOCK_SIZE = 16
_MASK = (1 << 128) - 1
_POLYNOMIAL = 0x87


def _xor(first: bytes, second: bytes) -> bytes:
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).to_bytes(BLOCK_SIZE, "big")


def _double(block: bytes) -> bytes:
    """Multiply by x in GF(2^128), big-endian."""
    value = int.from_bytes(block, "big") << 1
    if value > _MASK:
        value = (value & _MASK) ^ _POLYNOMIAL
    return value.to_bytes(BLOCK_SIZE, "big")


def cmac(encrypt: "Block", message: bytes) -> bytes:
    """The CMAC of a message, 16 octets."""
    subkey = _double(encrypt(bytes(BLOCK_SIZE)))
    last = max(0, (len(message) - 1) // BLOCK_SIZE) * BLOCK_SIZE
    tail = message[last:]
    if len(tail) < BLOCK_SIZE:
        subkey = _double(subkey)
        tail = tail + b"\x80" + bytes(BLOCK_SIZE - 1 - len(tail))
    state = bytes(BLOCK_SIZE)
    for start in range(0, last, BLOCK_SIZE):
        state = encrypt(_xor(state, message[start : start + BLOCK_SIZE]))
    return encrypt(_xor(state, _xor(tail, subkey)))


def _omac(encrypt: "Block", tweak: int, message: bytes) -> bytes:
    return cmac(encrypt, bytes(BLOCK_SIZE - 1) + bytes((tweak,)) + message)


def _counter_mode(encrypt: "Block", first: bytes, data: bytes) -> bytes:
    counter = int.from_bytes(first, "big")
    stream = b""
    while len(stream) < len(data):
        stream += encrypt(counter.to_bytes(BLOCK_SIZE, "big"))
        counter = (counter + 1) & _MASK
    size = len(data)
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[:size], "big")).to_bytes(size, "big")


def eax_encrypt(encrypt: "Block", nonce: bytes, header: bytes, plaintext: bytes) -> "tuple[bytes, bytes]":
    """Encrypt and authenticate: gives the ciphertext and its tag of 16 octets."""
    start = _omac(encrypt, 0, nonce)
    ciphertext = _counter_mode(encrypt, start, plaintext)
    tag = _xor(_xor(start, _omac(encrypt, 1, header)), _omac(encrypt, 2, ciphertext))
    return ciphertext, tag


def eax_decrypt(encrypt: "Block", nonce: bytes, header: bytes, ciphertext: bytes, tag: bytes) -> bytes | None:
    """The plaintext, or None when the tag is not right."""
    start = _omac(encrypt, 0, nonce)
    right = _xor(_xor(start, _omac(encrypt, 1, header)), _omac(encrypt, 2, ciphertext))
    if not equal(right, tag):
        return None
    return _counter_mode(encrypt, start, ciphertext)


def equal(first: bytes, second: bytes) -> bool:
    """Compare in a time that does not tell where the difference is."""
    if len(first) != len(second):
        return False
    difference = 0
    for one, other in zip(first, second):
        difference |= one ^ other
    return difference == 0
