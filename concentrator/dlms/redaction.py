"""APDUs without what must not be shown: passwords in the clear.

An AARQ with low level security carries the password itself (Green Book, 9.2.2.2.2 and 11.3); a SET of an association's
secret carries the next one (Blue Book, class 15 attribute 7). Neither is ciphered by those who use it. Challenges,
wrapped keys and ciphered APDUs stay as they are.
"""

from __future__ import annotations

import re

# mechanism-name [11]: 2.16.756.5.8.2.1, then calling-authentication-value [12] with its charstring [0].
_LOW_LEVEL_AARQ = re.compile(
    rb"\x8b\x07\x60\x85\x74\x05\x08\x02\x01\xac(?P<outer>.)\x80(?P<length>.)", re.DOTALL
)
# Set-Request-Normal of class 15, attribute 7, no selective access; the secret is an octet string.
_SET_SECRET = re.compile(rb"\xc1\x01.\x00\x0f.{6}\x07\x00\x09(?P<length>.)", re.DOTALL)


def without_passwords(octets: bytes) -> bytes:
    """The same octets, of an APDU or of any frame around one, with passwords replaced by zeros of the same length."""
    for pattern in (_LOW_LEVEL_AARQ, _SET_SECRET):
        for found in pattern.finditer(octets):
            first = found.end()
            last = min(len(octets), first + found["length"][0])
            octets = octets[:first] + bytes(last - first) + octets[last:]
    return octets
