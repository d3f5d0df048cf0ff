"""The single steps that a G3 modem is asked for, and how its network is formed from them.

Each step is a generator that yields one Request and returns its Answer; plc/host.py runs them. A modem
refuses a step by a status in the confirm, or by ADP_STATUS in place of the confirm.
"""

from plc.errors import MessageError
from plc.g3 import commands, enumerations, ib, ipv6
from plc.g3.commands import COMMANDS
from plc.host import REQUEST_ATTEMPTS, Answer, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.commands import Message
    from plc.host import Step

COORDINATOR_SHORT_ADDRESS = 0x0000
INITIALIZE_TIMEOUT_S = 10.0
NETWORK_START_TIMEOUT_S = 30.0
MAX_HOPS = 14
ROUTE_TTL_MIN = 360
CONTEXT_LIFETIME = 0xFFFF

# An attribute that no bootstrap server has: asking to set it changes nothing, and shows whether there is one.
_NO_LBP_ATTRIBUTE = 0x7FFFFFFF
BOOTSTRAP_SERVER_QUESTION = COMMANDS.encode(
    commands.LBP_SET_REQUEST, attribute=_NO_LBP_ATTRIBUTE, index=0, value=b""
)


def has_bootstrap_server(answer: "Message | None") -> bool:
    """Tell by the answer to BOOTSTRAP_SERVER_QUESTION whether the modem has the bootstrap server: generation B.

    Silence and "unknown command" are what generation A has to say to it.
    """
    if answer is None:
        return False
    return (
        answer.command == commands.LBP_SET_CONFIRM
        or answer.number("status") != enumerations.SERIAL_UNKNOWN_COMMAND
    )


def _set(command: int, confirm: int, attribute: int, index: int, value: bytes) -> "Step":
    payload = COMMANDS.encode(command, attribute=attribute, index=index, value=value)
    return (yield Request(payload, confirm, "attribute", attribute))


def _get(command: int, confirm: int, attribute: int, index: int, optional: bool) -> "Step":
    payload = COMMANDS.encode(command, attribute=attribute, index=index)
    attempts = 1 if optional else REQUEST_ATTEMPTS
    return (yield Request(payload, confirm, "attribute", attribute, optional, attempts=attempts))


def adp_set(attribute: int, index: int, value: bytes) -> "Step":
    """Set an attribute of the ADP information base."""
    return _set(commands.SET_REQUEST, commands.SET_CONFIRM, attribute, index, value)


def mac_set(attribute: int, value: bytes, index: int = 0) -> "Step":
    """Set an attribute of the MAC information base."""
    return _set(commands.MAC_SET_REQUEST, commands.MAC_SET_CONFIRM, attribute, index, value)


def lbp_set(attribute: int, value: bytes, index: int = 0) -> "Step":
    """Set an attribute of the modem's bootstrap server: its keys and its identity."""
    return _set(commands.LBP_SET_REQUEST, commands.LBP_SET_CONFIRM, attribute, index, value)


def adp_get(attribute: int, index: int = 0, optional: bool = False) -> "Step":
    """Get an attribute of the ADP information base; with `optional` silence is an answer."""
    return _get(commands.GET_REQUEST, commands.GET_CONFIRM, attribute, index, optional)


def mac_get(attribute: int, index: int = 0, optional: bool = False) -> "Step":
    """Get an attribute of the MAC information base; with `optional` silence is an answer."""
    return _get(commands.MAC_GET_REQUEST, commands.MAC_GET_CONFIRM, attribute, index, optional)


class NetworkParameters:
    """What a PAN is formed with. Keys are never shown."""

    __slots__ = (
        "band", "eui64", "frame_counter", "gmk", "gmk_index", "host_serves", "pan_id", "psk", "server_identity",
    )  # fmt: skip

    def __init__(self, pan_id: int, band: int, eui64: bytes, gmk: bytes, gmk_index: int) -> None:
        self.pan_id = pan_id
        self.band = band
        self.eui64 = eui64  # for a modem that has none
        self.gmk = gmk
        self.gmk_index = gmk_index
        self.psk = b""
        self.server_identity = b""
        self.host_serves = False  # the bootstrap server is the host: generation A
        self.frame_counter = 0  # the least that the modem's may be


def _initialize(parameters: NetworkParameters) -> "Step":
    if parameters.host_serves:
        # No answer is documented for generation A: what is asked next shows that it is there.
        payload = COMMANDS.encode(commands.INITIALIZE_REQUEST, band=parameters.band)
        return (yield Request(payload, commands.STATUS, optional=True, attempts=1))
    payload = COMMANDS.encode(
        commands.INITIALIZE_REQUEST, band=parameters.band, role=enumerations.ROLE_COORDINATOR
    )
    return (yield Request(payload, commands.STATUS, timeout_s=INITIALIZE_TIMEOUT_S))


def _set_keys(parameters: NetworkParameters) -> "Step":
    index = parameters.gmk_index
    if parameters.host_serves:
        answer = yield from mac_set(ib.MAC_KEY_TABLE, parameters.gmk, index)
        if is_refusal(answer):
            return answer
        if parameters.psk:
            # Its id depends on the release, and our own server works without it.
            yield from adp_set(ib.ADP_PSK_GENERATION_A, 0, parameters.psk)
        if parameters.frame_counter:
            counter = parameters.frame_counter.to_bytes(4, "big")
            yield from mac_set(ib.MAC_FRAME_COUNTER, counter)
        answer = yield from adp_set(ib.ADP_ACTIVE_KEY_INDEX, 0, bytes((index,)))
        # Index 0 is what a modem begins with.
        return answer if index else Answer([], True)
    keys = [(commands.LBP_PSK, 0, parameters.psk), (commands.LBP_GMK, index, parameters.gmk)]
    if parameters.server_identity:
        keys = [(commands.LBP_IDS, 0, parameters.server_identity)] + keys
    answer = Answer([], True)
    for attribute, key_index, value in keys:
        answer = yield from lbp_set(attribute, value, key_index)
        if is_refusal(answer):
            break
    return answer


def form_network(parameters: NetworkParameters) -> "Step":
    """Make a modem the coordinator of a PAN. The answer holds the message that refused a step, if any."""
    pan_id, eui64 = parameters.pan_id, parameters.eui64
    answer = yield from _initialize(parameters)
    if is_refusal(answer):
        return answer
    extended = value_of((yield from mac_get(ib.MAC_EXTENDED_ADDRESS)))
    if eui64 and extended in (b"", bytes(8), b"\xff" * 8):
        answer = yield from mac_set(ib.MAC_EXTENDED_ADDRESS, eui64)
        if is_refusal(answer):
            return answer
    answer = yield from _set_keys(parameters)
    if is_refusal(answer):
        return answer
    answer = yield from mac_set(ib.MAC_SHORT_ADDRESS, COORDINATOR_SHORT_ADDRESS.to_bytes(2, "big"))
    if is_refusal(answer):
        return answer
    # What follows tunes the network: firmware that refuses one of them still works.
    prefix = ipv6.link_local_address(pan_id, 0)[:10]
    context = CONTEXT_LIFETIME.to_bytes(2, "big") + bytes((1, 8 * len(prefix))) + prefix
    yield from adp_set(ib.ADP_CONTEXT_INFORMATION, 0, context)
    yield from adp_set(ib.ADP_MAX_HOPS, 0, bytes((MAX_HOPS,)))
    yield from adp_set(ib.ADP_ROUTING_TABLE_ENTRY_TTL, 0, ROUTE_TTL_MIN.to_bytes(2, "big"))
    payload = COMMANDS.encode(commands.NETWORK_START_REQUEST, pan_id=pan_id)
    answer = yield Request(payload, commands.NETWORK_START_CONFIRM, timeout_s=NETWORK_START_TIMEOUT_S)
    return answer if is_refusal(answer) else Answer([], True)


def _status_of(message: "Message") -> int:
    for field in ("status", "mac_status", "lbp_status"):
        if field in message.values:
            return message.number(field)
    return enumerations.ADP_SUCCESS


def is_refusal(answer: Answer) -> bool:
    """Tell whether the modem answered, and answered no."""
    return bool(answer.messages) and _status_of(answer.messages[0]) != enumerations.ADP_SUCCESS


def refusal_in_words(message: "Message") -> str:
    """Say which step the modem refused; values may be keys, and are not shown."""
    text = f"the modem refused a step of its start-up: {message.name} with status 0x{_status_of(message):02X}"
    if "attribute" in message.values:
        text += f", attribute 0x{message.number('attribute'):X}"
    if "refused_command" in message.values:
        text += f", command {message.number('refused_command')}"
    return text


def value_of(answer: Answer) -> bytes:
    """The value of a get confirm; empty when the modem refused or kept silent."""
    if not answer.messages or "value" not in answer.messages[0].values or is_refusal(answer):
        return b""
    return answer.messages[0].octets("value")


def record_of(layer: str, attribute: int, value: bytes) -> "dict[str, int | bytes]":
    """The record of a table; an empty one when it is too short."""
    try:
        return ib.decode_record(layer, attribute, value)
    except MessageError:
        return {}


def number_of(record: "dict[str, int | bytes]", field: str) -> int:
    """A number of a record; 0xFFFF, which is no address, when it is not there."""
    value = record.get(field)
    return value if isinstance(value, int) else commands.DECLINE
