"""Undoing the security of the transport layer (EN 13757-7), mode by mode, and saying what came of it."""

from __future__ import annotations

from typing import NamedTuple

from concentrator.wmbus import diehl
from concentrator.wmbus.address import Address
from concentrator.wmbus.derived_keys import Message, open_message
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.layers import AuthenticationLayer, Content, TransportLayer
from concentrator.wmbus.profile import profile_for
from concentrator.wmbus.security import (
    BLOCK_MODES,
    BLOCK_OCTETS,
    DECRYPTION_CHECK,
    DERIVED_KEY_MODES,
    KDF_CMAC,
    KDF_NONE,
    MODE_AES_CBC_ADDRESS_VECTOR,
    MODE_AES_CBC_DERIVED_KEY,
    MODE_AES_CBC_ZERO_VECTOR,
    MODE_AES_CTR,
    MODE_DES_CBC_ZERO_VECTOR,
    MODE_NONE,
    KeyRing,
    MessageCounters,
    MeterKey,
    Security,
    SecurityState,
    decrypt_mode_2,
    decrypt_mode_4,
    decrypt_mode_5,
)

_SCRAMBLED_MODE = 0x10
_SHORT_HEADER_OCTETS = 5
# Known to everybody: content under them is no secret, but it is the meter's.
_FACTORY_KEYS = {
    "APA": MeterKey(bytes(BLOCK_OCTETS)),
    **{maker: MeterKey(diehl.FACTORY_KEY) for maker in diehl.MANUFACTURERS},
}


class Protected(NamedTuple):
    """A transport layer's message: `protected` from its CI-field on, `body` what follows its header.

    `sent_address` is the link layer's address as it was sent, where a manufacturer writes it in its own order.
    """

    tpl: TransportLayer
    afl: AuthenticationLayer | None
    meter: Address | None
    sent_address: bytes
    protected: bytes
    body: bytes


class Opened(NamedTuple):
    """What came of it: `payload` is plain where the state is readable; `tail` was sent in the clear behind it."""

    state: SecurityState
    payload: bytes
    reason: str = ""
    tail: bytes = b""


def open_protection(message: Protected, keys: KeyRing, counters: MessageCounters | None) -> Opened:
    """Undo the security of a message; `counters` find replays in the modes that have a message counter.

    Raises:
        TelegramError: less content than the header announces, or no whole blocks.
    """
    tpl, body, meter, mode = message.tpl, message.body, message.meter, message.tpl.mode
    length = tpl.encrypted_octets if mode in BLOCK_MODES else 0
    if mode == MODE_NONE or tpl.content is Content.MANUFACTURER or (mode in BLOCK_MODES and length == 0):
        return Opened(SecurityState.PLAIN, body)
    profile = profile_for(meter) if meter is not None else None
    if profile is not None and mode in profile.plain_modes:
        return Opened(SecurityState.PLAIN, body)
    key = keys.key_for(meter) if meter is not None else None
    if mode & _SCRAMBLED_MODE and message.sent_address and diehl.is_scrambled(message.protected):
        return _unscramble(message, key)
    looks_plain = body.startswith(DECRYPTION_CHECK)
    if mode not in BLOCK_MODES and mode not in DERIVED_KEY_MODES:
        if looks_plain:
            return Opened(SecurityState.ALREADY_PLAIN, body)
        name = Security(mode=mode).mode_name
        return Opened(SecurityState.NOT_SUPPORTED, body, f"security mode {mode} ({name}) is not supported")
    if key is None and meter is not None and mode == MODE_AES_CBC_ADDRESS_VECTOR and not looks_plain:
        key = _factory_key(message, meter, body[:length])
    encrypted, tail = (body[:length], body[length:]) if mode in BLOCK_MODES else (body, b"")
    if key is None or meter is None:
        if looks_plain:
            return Opened(SecurityState.ALREADY_PLAIN, body)
        return Opened(SecurityState.KEY_MISSING, body, f"no key is set up for {meter}", tail)
    if len(encrypted) < length:
        raise TelegramError(f"{length} encrypted octets announced, {len(body)} octets came from {meter}")
    if key.is_des != (mode == MODE_DES_CBC_ZERO_VECTOR):
        reason = f"the key of {meter} is {'a' if key.is_des else 'no'} DES key, the mode is {mode}"
        return Opened(SecurityState.KEY_WRONG, body, reason, tail)
    if mode in DERIVED_KEY_MODES:
        state, reason, plain = _open_derived(message, key, meter, encrypted, counters)
    else:
        plain = _decrypt_blocks(message, key, meter, encrypted)
        state, reason = SecurityState.DECODED, ""
        if plain is None:
            state, reason = SecurityState.KEY_WRONG, f"the key of {meter} gives noise (no 2F 2F)"
    if plain is not None:
        return Opened(state, plain + tail, reason)
    if looks_plain and state is SecurityState.KEY_WRONG:
        reason = f"the content is plain, but {meter} has a key: a forgery, or remove the key"
    return Opened(state, body, reason, tail)


def _unscramble(message: Protected, key: MeterKey | None) -> Opened:
    plain = diehl.open_records(message.sent_address, message.protected, None if key is None else key.reveal())
    if plain is not None:
        return Opened(SecurityState.DECODED, plain)
    body = message.protected[_SHORT_HEADER_OCTETS:]
    if body.startswith(DECRYPTION_CHECK):
        return Opened(SecurityState.ALREADY_PLAIN, body)
    state = SecurityState.KEY_MISSING if key is None else SecurityState.KEY_WRONG
    return Opened(state, body, f"no key opens the scrambled content of {message.meter}")


def _factory_key(message: Protected, meter: Address, encrypted: bytes) -> MeterKey | None:
    """The key that all meters of a maker leave the factory with, if it opens the content."""
    key = _FACTORY_KEYS.get(meter.manufacturer)
    if key is None or not encrypted or len(encrypted) % BLOCK_OCTETS:
        return None
    return key if _decrypt_blocks(message, key, meter, encrypted) is not None else None


def _decrypt_blocks(message: Protected, key: MeterKey, meter: Address, encrypted: bytes) -> bytes | None:
    mode = message.tpl.mode
    try:
        if mode == MODE_AES_CBC_ADDRESS_VECTOR:
            return decrypt_mode_5(key, meter, message.tpl.access_number or 0, encrypted)
        return (
            decrypt_mode_4(key, encrypted)
            if mode == MODE_AES_CBC_ZERO_VECTOR
            else decrypt_mode_2(key, encrypted)
        )
    except ValueError:
        raise TelegramError(f"{len(encrypted)} encrypted octets are no whole blocks") from None


def _open_derived(
    message: Protected, key: MeterKey, meter: Address, encrypted: bytes, counters: MessageCounters | None
) -> tuple[SecurityState, str, bytes | None]:
    """Modes 7 to 10. The counter moves only once the message proved to be the meter's."""
    afl, tpl = message.afl, message.tpl
    if tpl.key_derivation not in (KDF_NONE, KDF_CMAC):
        return SecurityState.NOT_SUPPORTED, f"key derivation {tpl.key_derivation} is not supported", None
    in_the_afl = tpl.mode in (MODE_AES_CBC_DERIVED_KEY, MODE_AES_CTR)
    if afl is None or afl.counter is None or (in_the_afl and not afl.mac):
        reason = f"mode {tpl.mode} without message counter or MAC is refused"
        return SecurityState.NOT_SUPPORTED, reason, None
    header = message.protected[: len(message.protected) - len(message.body)]
    tail = message.body[len(encrypted) :]
    opened = open_message(
        Message(
            tpl.mode,
            tpl.key_derivation == KDF_CMAC,
            afl.counter,
            tpl.access_number or 0,
            afl.protected_header(),
            header,
            encrypted,
            tail,
            afl.mac,
        ),
        key,
        meter,
    )
    if opened is None:
        return SecurityState.KEY_WRONG, f"the MAC misses with the key of {meter}", None
    if counters is not None and not counters.accept(meter, afl.counter):
        return SecurityState.REPLAY, f"message counter {afl.counter} of {meter} did not rise", None
    if not opened:
        return SecurityState.KEY_WRONG, f"the key of {meter} gives noise (no 2F 2F)", None
    return SecurityState.DECODED, "", opened
