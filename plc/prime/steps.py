"""The single steps that a PRIME modem is asked for; plc/host.py runs them."""

from plc.host import Answer, Request
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.host import Step

LIST_ATTEMPTS = 3  # of which one comes whole
# The only channel of a single-PHY modem.
PCH = 0


def get(attribute: int, optional: bool = False) -> "Step":
    """Get an attribute, of the PHY or of the MAC; with `optional` silence is an answer."""
    confirm = commands.MLME_GET_CONFIRM
    if pib.is_phy(attribute):
        payload = COMMANDS.encode(commands.PLME_GET_REQUEST, pib=attribute, pch=PCH)
        confirm = commands.PLME_GET_CONFIRM
    else:
        payload = COMMANDS.encode(commands.MLME_GET_REQUEST, pib=attribute)
    return (yield Request(payload, confirm, "pib", attribute, optional, attempts=1 if optional else 3))


def set_attribute(attribute: int, value: bytes, optional: bool = False) -> "Step":
    """Set an attribute, of the PHY or of the MAC. The confirm does not say of which."""
    confirm = commands.MLME_SET_CONFIRM
    if pib.is_phy(attribute):
        payload = COMMANDS.encode(commands.PLME_SET_REQUEST, pib=attribute, value=value, pch=PCH)
        confirm = commands.PLME_SET_CONFIRM
    else:
        payload = COMMANDS.encode(commands.MLME_SET_REQUEST, pib=attribute, value=value)
    return (yield Request(payload, confirm, optional=optional))


def get_list(attribute: int, optional: bool = False) -> "Step":
    """Get a list attribute, which comes in several parts; with `optional` silence is an answer."""
    payload = COMMANDS.encode(commands.MLME_LIST_GET_REQUEST, pib=attribute)
    answer = Answer([], False)
    for _ in range(LIST_ATTEMPTS):
        answer = yield Request(
            payload,
            commands.MLME_LIST_GET_CONFIRM,
            "pib",
            attribute,
            optional,
            True,
            attempts=1 if optional else 3,
        )
        if answer.complete or (optional and not answer.messages):
            break
    return answer


def result_in_words(answer: Answer) -> str:
    """What came of a set request."""
    if not answer.messages:
        return "the modem did not answer"
    return enumerations.name_of(enumerations.MLME_RESULTS, answer.messages[0].number("result"))


def value_of(answer: Answer) -> bytes:
    """The value of a get confirm; empty when the modem refused or kept silent."""
    if not answer.messages or answer.messages[0].number("result") != enumerations.MLME_SUCCESS:
        return b""
    return answer.messages[0].octets("value")
