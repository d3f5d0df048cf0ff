"""AES for tests on an interpreter that has none: one block under a key of 16 octets (FIPS 197), slow and plain."""


def _multiply(one, other):
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        if one & 0x100:
            one ^= 0x11B
        other >>= 1
    return product


def _make_box():
    box = [0x63] * 256
    for value in range(1, 256):
        inverse = 1
        for _ in range(254):
            inverse = _multiply(inverse, value)
        turned = inverse
        for shift in (1, 2, 3, 4):
            turned ^= ((inverse << shift) | (inverse >> (8 - shift))) & 0xFF
        box[value] = turned ^ 0x63
    return box


_BOX = _make_box()


def _expand(key):
    words = [list(key[start : start + 4]) for start in (0, 4, 8, 12)]
    constant = 1
    for index in range(4, 44):
        word = list(words[index - 1])
        if index % 4 == 0:
            word = [_BOX[octet] for octet in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _multiply(constant, 2)
        words.append([one ^ other for one, other in zip(words[index - 4], word)])
    return [
        words[start] + words[start + 1] + words[start + 2] + words[start + 3] for start in range(0, 44, 4)
    ]


def plain_aes(key):
    rounds = _expand(key)

    def encrypt(block):
        state = [one ^ other for one, other in zip(block, rounds[0])]
        for number in range(1, 11):
            state = [_BOX[state[(index + 4 * (index % 4)) % 16]] for index in range(16)]
            if number < 10:
                mixed = []
                for start in (0, 4, 8, 12):
                    a, b, c, d = state[start : start + 4]
                    for w, x, y, z in ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):
                        mixed.append(_multiply(w, 2) ^ _multiply(x, 3) ^ y ^ z)
                state = mixed
            state = [one ^ other for one, other in zip(state, rounds[number])]
        return bytes(state)

    return encrypt


def _find():
    try:
        from cryptolib import aes  # MicroPython with its cryptography

        return lambda key: aes(key, 1).encrypt
    except ImportError:
        pass
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        return lambda key: Cipher(algorithms.AES(key), modes.ECB()).encryptor().update  # noqa: S305
    except ImportError:
        return plain_aes


aes = _find()
