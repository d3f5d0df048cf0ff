"""Changing a meter's keys: key_transfer and key_agreement of Security setup (class 64, Green Book 9.2.3.4).

The new keys are made on the box, and are on flash as pending before they go out (`changed_keys`). Which keys the meter
takes is told by the next association alone: new ones and old ones are tried there, and what works is kept. Keys stand
in no order, result, audit entry or message.

A key that is agreed on exists only when the meter's answer is here. Where that is lost, the meter holds a key that
nobody else has: it is then reached by ECDSA and a key that goes along wrapped under the master key, and is given others
by key_transfer. So key_agreement is done only where that way is open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from concentrator.collection.changed_keys import ChangedKeys, KeySet
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    State,
    Verdict,
    as_plain,
    attribute,
    readable,
)
from concentrator.collection.control.errors import ControlRefusedError
from concentrator.collection.keyring import MeterKeys
from concentrator.dlms.attributes import MethodDescriptor
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.key_agreement import KeyAgreement, KeyId, wrapped_keys
from concentrator.dlms.security import KEY_LENGTHS
from concentrator.obis import Obis

SECURITY_SETUP = 64
SECURITY_SETUP_NAME = "0-0:43.0.0*255"
WRAP, AGREEMENT = "wrap", "agreement"
_KEY_TRANSFER, _KEY_AGREEMENT = 2, 3
_KEY_IDS = {
    "encryption": KeyId.GLOBAL_UNICAST,
    "authentication": KeyId.AUTHENTICATION,
    "master": KeyId.MASTER,
}


class ChangeKeys(Command):
    """Which keys are to be changed, and how. `desk` carries it out: it takes a second association."""

    def __init__(self, obis: Obis, method: str, names: list[str]) -> None:
        super().__init__({"obis": str(obis), "method": method, "keys": names})
        self.obis = obis
        self.method = method
        self.names = tuple(names)

    @classmethod
    def recovery(cls) -> ChangeKeys:
        """Both keys of the association, wrapped: for a meter whose keys were lost."""
        return cls(Obis.parse(SECURITY_SETUP_NAME), WRAP, ["encryption", "authentication"])

    def observe(self, client: Client) -> Conversation[State]:
        """Suite and policy of the Security setup."""
        policy, suite = yield from client.get_many(
            [attribute(SECURITY_SETUP, self.obis, number) for number in (2, 3)]
        )
        return {"security_policy": readable(policy, as_plain), "security_suite": readable(suite, as_plain)}

    def send(self, client: Client) -> Conversation[State]:
        """Not sent by itself: see `transfer`."""
        del client
        yield from ()
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """By the generation of the keys that the meter takes."""
        if after["generation"] >= before["new_generation"]:
            return Verdict(Outcome.DONE)
        return Verdict(Outcome.NOT_DONE, "the meter takes the keys that it had before")


def make_change_keys(arguments: Arguments) -> Command:
    """{"method": "wrap" or "agreement", "keys": of encryption, authentication, master, "obis": Security setup}.

    By agreement the encryption key only.
    """
    obis = arguments.obis("obis", SECURITY_SETUP_NAME)
    method = arguments.choice("method", (WRAP, AGREEMENT), WRAP)
    if method == AGREEMENT:
        # The other keys protect the way by which a lost one is mended.
        names = arguments.words("keys", ("encryption",), ("encryption",))
    else:
        names = arguments.words("keys", tuple(_KEY_IDS), ("encryption", "authentication"))
        if names == ["master"]:
            # An association shows whether the others were taken, and the master key with them; it alone shows nowhere.
            raise arguments.mistake("keys", "master together with encryption or authentication")
    arguments.finish()
    return ChangeKeys(obis, method, names)


@dataclass(slots=True)
class KeyTransfer:
    """One change of one meter's keys: `keys` are those that the dialogue at hand uses."""

    identity: str
    command: ChangeKeys
    keys: MeterKeys
    changed: ChangedKeys
    new: KeySet
    _agreement: KeyAgreement | None = None

    @classmethod
    def begin(
        cls,
        identity: str,
        command: ChangeKeys,
        keys: MeterKeys | None,
        changed: ChangedKeys | None,
        client: Client,
    ) -> KeyTransfer:
        """Make the new keys.

        Raises:
            ControlRefusedError: the key file does not have what this way needs.
        """
        if keys is None or changed is None:
            raise ControlRefusedError(f"meter {identity}: is read without keys, so none can be changed")
        if not keys.master_key:
            raise ControlRefusedError(
                f"meter {identity}: the key file has no master_key for it, which wraps new keys and mends a lost one"
            )
        entry = changed.entry(identity, keys.origin)
        generation = 1 + max(keys.generation, entry.newest_generation if entry is not None else 0)
        new = KeySet(generation, keys.counter, keys.encryption_key, keys.authentication_key, keys.master_key)
        made = cls(identity, command, keys, changed, new)
        if command.method == AGREEMENT:
            made._begin_agreement(client)
        else:
            length = KEY_LENGTHS[keys.suite]
            for name in command.names:
                setattr(new, f"{name}_key", os.urandom(length))
        return made

    def _begin_agreement(self, client: Client) -> None:
        keys, security = self.keys, client.security
        if (
            security is None
            or keys.mechanism is not AuthenticationMechanism.HLS_ECDSA
            or keys.signing_key is None
            or keys.meter_signing_key is None
        ):
            raise ControlRefusedError(
                f"meter {self.identity}: keys are agreed on with suite, signing_key and meter_signing_key in the key "
                "file; without them use method wrap"
            )
        self._agreement = KeyAgreement(
            keys.suite,
            keys.signing_key,
            keys.meter_signing_key,
            client.settings.system_title,
            security.peer_system_title,
        )

    def keep(self, client: Client) -> None:
        """Put the new keys on flash before the meter gets them. Raises KeyFileError."""
        title = client.security.peer_system_title if client.security is not None else b""
        if self._agreement is None:
            self.changed.prepare(self.identity, self.keys.origin, self.new, meter_system_title=title)
        else:
            # Nothing to keep yet but that the meter may soon have a key that is not known here.
            self.changed.prepare(
                self.identity,
                self.keys.origin,
                KeySet(self.new.generation, self.new.counter),
                lost=True,
                meter_system_title=title,
            )

    def send(self, client: Client) -> Conversation[None]:
        """Invoke the method.

        Raises:
            AccessError: the meter refused.
            DlmsError: its answer made no sense, or did not come.
        """
        key_ids = [_KEY_IDS[name] for name in self.command.names]
        if self._agreement is None:
            values: dict[KeyId, bytes] = {
                _KEY_IDS[name]: getattr(self.new, f"{name}_key") for name in self.command.names
            }
            method = MethodDescriptor(SECURITY_SETUP, self.command.obis, _KEY_TRANSFER)
            yield from client.action(method, wrapped_keys(self.keys.master_key, values))
            return
        method = MethodDescriptor(SECURITY_SETUP, self.command.obis, _KEY_AGREEMENT)
        answer = yield from client.action(method, self._agreement.offer(key_ids))
        agreed = self._agreement.agree(answer)
        for name in self.command.names:
            setattr(self.new, f"{name}_key", agreed[_KEY_IDS[name]])

    def keep_agreed(self) -> None:
        """Put keys that were agreed on on flash, right after `send`. Raises KeyFileError."""
        if self._agreement is not None:
            self.changed.complete(self.identity, self.keys.origin, self.new)

    def states(self) -> tuple[State, State]:
        """What the audit trail keeps: which generation there was, and which there is to be."""
        before: dict[str, Any] = {"generation": self.keys.generation, "new_generation": self.new.generation}
        return before, {"generation": self.new.generation}
