"""Long messages in fragments (EN 13757-7, authentication and fragmentation layer).

The first fragment carries message control, counter and length of the message, the last one its MAC. The
fragments of a meter come in order, one message at a time; a repeated one is ignored, a gap gives the
message up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from concentrator.wmbus.address import Address
from concentrator.wmbus.layers import AuthenticationLayer

# A message's length is sent in 16 bits; what no meter sends is not collected.
LONGEST_MESSAGE_OCTETS = 16 * 1024
_MOST_MESSAGES = 64


@dataclass(slots=True)
class _Begun:
    """A message of which the fragments up to `last` came."""

    first: AuthenticationLayer
    last: int
    octets: bytearray = field(default_factory=bytearray)


class FragmentMemory:
    """The messages that have begun, one for each sender; bounded, the oldest is given up first."""

    def __init__(self) -> None:
        self._begun: OrderedDict[Address, _Begun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def take(
        self, sender: Address, afl: AuthenticationLayer, octets: bytes
    ) -> tuple[AuthenticationLayer, bytes] | None:
        """Take the octets behind the AFL of one fragment.

        Returns:
            The AFL of the whole message and the message, once the last fragment came; else None.
        """
        if afl.fragment == 1:
            self._begun[sender] = _Begun(afl, 1, bytearray(octets))
            self._begun.move_to_end(sender)
            if len(self._begun) > _MOST_MESSAGES:
                self._begun.popitem(last=False)
            return None
        begun = self._begun.get(sender)
        if begun is None or afl.fragment == begun.last:
            return None
        fits = len(begun.octets) + len(octets) <= LONGEST_MESSAGE_OCTETS
        if afl.fragment != begun.last + 1 or not fits:
            del self._begun[sender]
            return None
        begun.last = afl.fragment
        begun.octets += octets
        if afl.more_fragments:
            return None
        del self._begun[sender]
        first = begun.first
        if first.message_length is not None and first.message_length != len(begun.octets):
            return None
        whole = replace(
            first, fragment=afl.fragment, more_fragments=False, counter=_either(first.counter, afl.counter)
        )
        return replace(whole, mac=afl.mac or first.mac), bytes(begun.octets)


def _either(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
