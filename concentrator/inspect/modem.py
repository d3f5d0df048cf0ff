"""USI frames and S-FSK local frames of PLC modems as trees, with the APDUs within."""

from __future__ import annotations

from concentrator.dlms.explain import Explainer, Tree
from plc.errors import MessageError
from plc.g3 import commands as g3_commands
from plc.g3 import coordinator_commands, ipv6
from plc.g3 import messages as g3_messages
from plc.prime import commands as prime_commands
from plc.prime import messages as prime_messages
from plc.prime import mngp
from plc.sfsk import messages as sfsk_messages
from plc.usi.framing import PROTOCOL_ADP_G3, PROTOCOL_COORDINATOR_G3, PROTOCOL_PRIME_API

_PRIME_DATA = (prime_commands.CL_432_DL_DATA_REQUEST, prime_commands.CL_432_DL_DATA_INDICATION)
_G3_DATA = (g3_commands.DATA_REQUEST, g3_commands.DATA_INDICATION)


def explain_usi(protocol: int, payload: bytes, dlms: Explainer) -> Tree:
    """The tree of one USI frame, by its protocol id."""
    tree: Tree = {"frame": "usi", "protocol": f"0x{protocol:02x}"}
    if protocol == PROTOCOL_PRIME_API:
        name, fields = prime_messages.describe(payload, _from_host(payload, prime_commands.COMMANDS))
        apdu = _prime_apdu(payload)
    elif protocol == PROTOCOL_ADP_G3:
        name, fields = g3_messages.describe(payload, _from_host(payload, g3_commands.COMMANDS))
        apdu = _g3_apdu(payload)
    elif protocol in (*mngp.PROTOCOLS, PROTOCOL_COORDINATOR_G3):
        describe = coordinator_commands.describe if protocol == PROTOCOL_COORDINATOR_G3 else None
        name, fields = describe(payload) if describe else mngp.describe(protocol, payload)
        apdu = b""
    else:
        return {**tree, "payload": payload.hex()}
    tree["message"] = name
    tree.update({field: value for field, value in fields if field not in ("reason", "octets")})
    reason = dict(fields).get("reason")
    if reason is not None:
        tree["error"] = reason
        tree["payload"] = dict(fields).get("octets", "")
    if apdu:
        tree["decoded"] = dlms.apdu(apdu)
    return tree


def explain_local_frame(payload: bytes, dlms: Explainer) -> Tree:
    """The tree of one local frame of an S-FSK modem."""
    name, fields = sfsk_messages.describe(payload)
    tree: Tree = {"frame": "s-fsk", "message": name}
    named = dict(fields)
    tree.update({field: value for field, value in fields if field not in ("reason", "octets")})
    if "reason" in named:
        tree["error"] = named["reason"]
        tree["payload"] = named.get("octets", "")
    apdu = sfsk_messages.apdu_of(payload)
    if apdu:
        tree["decoded"] = dlms.apdu(apdu)
    return tree


def _from_host(payload: bytes, table: prime_commands.CommandTable) -> bool:
    """The direction that a command has in its table."""
    row = table.row(payload[0] & 0x7F) if payload else None
    return row is not None and row[1] == prime_commands.FROM_HOST


def _prime_apdu(payload: bytes) -> bytes:
    if not payload or payload[0] not in _PRIME_DATA:
        return b""
    try:
        return prime_commands.COMMANDS.decode(payload).octets("data")
    except MessageError:
        return b""


def _g3_apdu(payload: bytes) -> bytes:
    if not payload or payload[0] not in _G3_DATA:
        return b""
    try:
        packet = g3_commands.COMMANDS.decode(payload).octets("packet")
        *_addresses, data = ipv6.decode_udp(packet)
        (found, *_more) = ipv6.decode_wrapper(data)
    except (MessageError, ValueError):
        return b""
    return found[2]
