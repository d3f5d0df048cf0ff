"""What the service, the modem and the meters say in English, in the reader's language.

Reasons are put together where something goes wrong, for the log and for programs, and stay English there. The page
knows the commonest of them by their pattern: it takes the values out, translates the pattern, and puts them in again; a
value can be a reason itself. What it does not know stays as it is. A test holds each pattern against the texts in
the code, so that none goes stale.
"""

from __future__ import annotations

import functools
import re

from concentrator.web.translations import ENGLISH, Catalogue, mark

# In the order in which they are tried: the more exact before those that hold any reason.
PATTERNS: tuple[str, ...] = (
    # The power line
    mark("the modem restarted and forgot it"),
    mark("not in the modem's list of 4-32 nodes"),
    mark("its 4-32 address was given to another node"),
    mark("its short address was given to another node"),
    mark("unregistered"),
    mark("registered anew"),
    mark("joins anew"),
    mark("expelled"),
    mark("closed its 4-32 connection"),
    mark("no route to it was found"),
    mark("it does not answer pings"),
    mark("it is New again: it had no power, or was not addressed for long"),
    mark("declined: not on the whitelist of the network"),
    mark("left the network: %(why)s"),
    mark("left the network"),
    mark("joined the network"),
    mark("node %(node)s: no answer to client %(client)s within %(seconds)s s"),
    mark("node %(node)s: the modem is not there: %(why)s"),
    mark("node %(node)s left: %(why)s"),
    # Dialogues
    mark("%(why)s; instead came %(came)s"),
    mark("took longer than %(seconds)s s, %(doing)s then"),
    mark("took longer than %(seconds)s s"),
    mark("no keys for meter %(meter)s (EUI %(eui)s): import them, or add them to the key file"),
    mark("no keys for meter %(meter)s: add them to the key file"),
    mark("no password for meter %(meter)s (EUI %(eui)s), of model %(model)s: import it"),
    mark("it is ciphered, and there are no keys for meter %(meter)s"),
    mark("the authentication tag does not fit: wrong key, or altered on the way"),
    mark("the meter does not accept our proof: %(why)s"),
    mark("the meter did not answer our challenge"),
    mark("the meter sent no challenge: it cannot do the authentication asked for"),
    mark("the peer's answer to our challenge is wrong: it does not know the secret"),
    mark("association refused: %(why)s"),
    mark("the meter has none of %(objects)s"),
    mark("refused us %(count)s times: %(why)s"),
    mark("internal error: %(name)s; the log has the details"),
    mark("introducing itself"),
    mark("reading its M-Bus channels"),
    mark("reading event logs"),
    mark("reading %(what)s"),
    mark("the modem is not ready"),
    # What is missing
    mark("the meter has no data for it"),
    mark("the meter was without power"),
    mark("the meter's clock was moved"),
    mark("the meter's buffer has lost it"),
    mark("not had within the history that is asked for"),
    mark("the meter did not record yet"),
    mark("without power since %(since)s: %(detail)s"),
    # Clocks
    mark("the meter's clock is %(size)s s ahead"),
    mark("the meter's clock is %(size)s s behind"),
    mark("%(ahead)s; our own time is not synchronised"),
    mark("%(ahead)s: more than %(limit)s s needs an order"),
    mark("%(ahead)s; a step now would cross an interval's end"),
    # The registry and the air
    mark("heard, and not set up"),
    mark("sent in the clear, but this meter has a key: a forgery, or remove the key"),
    mark("entered by hand, and not met yet"),
    mark("entered again"),
    mark("replaced by %(meter)s"),
    mark("removed by order"),
    mark("marked as foreign by order"),
    mark("none of collection.own_meters: serial number %(serial)s, name %(name)s"),
    # Ports
    mark("serial port %(port)s: %(why)s"),
    mark("port %(port)s: %(why)s"),
    mark("is not there; is the modem plugged in, and the path right?"),
    mark("may not be opened; is this user in the group dialout?"),
    mark("is in use by another program"),
    mark("the device went away"),
    mark("closed on the other side"),
    mark("takes no more data: the modem behind it does not read"),
    mark("not answering"),
    mark("the modem is %(state)s: %(why)s"),
    # Destinations
    mark("the broker does not answer CONNECT"),
    mark("the broker does not answer SUBSCRIBE"),
    mark("the broker acknowledges nothing any more"),
    mark("the connection is not open any more"),
    mark("the head-end closed the connection"),
    mark("the head-end does not accept the connection"),
    mark("the head-end did not confirm within %(seconds)s s"),
    mark("the primary host %(host)s went offline"),
    mark("the server does not answer"),
    mark("the concentrator is stopping"),
    # The service
    mark("control socket %(path)s: closed without an answer; is the concentrator stopping?"),
    mark("control socket %(path)s: %(why)s; is the concentrator running?"),
    mark("no answer on %(path)s within %(seconds)s s"),
    # Orders
    mark("meter %(meter)s is not on the network: %(why)s"),
    mark("meter %(meter)s is %(state)s and left alone: %(why)s"),
    mark("meter %(meter)s: no turn within %(seconds)s s"),
    mark("meter %(meter)s left the network"),
    mark("no answer within %(seconds)s s"),
    mark("order %(order)s: %(why)s"),
    mark("order %(operation)s"),
    mark("meter %(meter)s: %(why)s"),
    mark("it answers; its clock shows %(time)s"),
    mark("the switch is %(state)s, the supply is on"),
    mark("the switch is %(state)s, the supply is off"),
    mark("disconnected"),
    # Who is looked at when energy is lost
    mark("magnetic field"),
    mark("cover opened"),
    mark("tampering"),
    mark("phases or current wrong"),
    mark("%(what)s once, last %(at)s"),
    mark("%(what)s %(count)s times, last %(at)s"),
    mark("phase mismatch: registered on %(registered)s, seen on %(seen)s"),
    mark("consumption fell by %(share)s from %(day)s on"),
    mark("losses rose by %(size)s kWh a day at the same time"),
    mark("losses move with its consumption (correlation %(strength)s)"),
)
_VALUE = re.compile(r"%\((\w+)\)s")
# A reason within a reason within a reason.
_DEEPEST = 4
_LONGEST = 500


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    found: list[tuple[str, re.Pattern[str]]] = []
    for text in PATTERNS:
        parts = _VALUE.split(text)
        expression = "".join(
            f"(?P<{part}>.+?)" if number % 2 else re.escape(part) for number, part in enumerate(parts)
        )
        found.append((text, re.compile(expression, re.DOTALL)))
    return tuple(found)


@functools.lru_cache(maxsize=2048)
def told(text: str, catalogue: Catalogue, depth: int = 0) -> str:
    """A reason in the language of a catalogue, as far as it is known."""
    if not text or len(text) > _LONGEST or depth > _DEEPEST:
        return text
    if text in catalogue:
        return catalogue.gettext(text)
    if catalogue.language == ENGLISH:
        return text
    for pattern, expression in _patterns():
        match = expression.fullmatch(text)
        if match:
            values = {name: told(value, catalogue, depth + 1) for name, value in match.groupdict().items()}
            return catalogue.gettext(pattern, **values)
    return text
