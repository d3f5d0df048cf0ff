"""How the notifications to one head-end are protected: a file of keys, JSON, mode 0600.

```json
{"protection": "general-glo-ciphering", "suite": 0, "system_title": "16 hex",
 "encryption_key": "32 hex", "authentication_key": "32 hex"}
```

`system_title` is the head-end's. `protection` is general-glo-ciphering or general-ciphering; with `signed` a signature
goes around it (suites 1 and 2), with `authenticated` or `encrypted` false that part is left away. `key` of
general-ciphering is identified, wrapped (with `master_key`), one-pass or static-unified. What a head-end
confirms has to be protected as much, unless `plain_confirmation` is true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from concentrator.dlms import apdu as apdus
from concentrator.dlms.apdu.notification import DataNotificationConfirm
from concentrator.dlms.envelopes import Envelope, EnvelopeKind, KeyEstablishment, Protected, unwrap, wrap
from concentrator.dlms.errors import SecurityError
from concentrator.dlms.security import KEY_LENGTHS, CounterSource, SecurityContext, SecurityControl
from concentrator.uplink.head_end_file import HeadEndFileError, read_private_json
from concentrator.uplink.head_ends import read_keys

_KINDS = {
    "general-glo-ciphering": EnvelopeKind.GENERAL,
    "general-ciphering": EnvelopeKind.GENERAL_CIPHERING,
}
_ESTABLISHMENTS = {
    "identified": KeyEstablishment.IDENTIFIED,
    "wrapped": KeyEstablishment.WRAPPED,
    "one-pass": KeyEstablishment.ONE_PASS,
    "static-unified": KeyEstablishment.STATIC_UNIFIED,
}
_TITLE_OCTETS = 8


class PushProtection:
    """Protects what goes to one head-end, and checks what it confirms; without a context nothing is protected."""

    def __init__(
        self,
        security: SecurityContext | None = None,
        envelope: Envelope | None = None,
        *,
        plain_confirmation: bool = True,
    ) -> None:
        self._security = security
        self._envelope = envelope or Envelope(EnvelopeKind.GENERAL)
        self._plain_confirmation = plain_confirmation

    @property
    def security(self) -> SecurityContext | None:
        """Keys and counters; None where nothing is protected."""
        return self._security

    def protect(self, notification: bytes) -> bytes:
        """The APDU as it goes out, under a new invocation counter.

        Raises:
            EncodeError: a key that it takes is not set up.
        """
        if self._security is None:
            return notification
        return wrap(self._security, notification, self._envelope)

    def confirmation(self, apdu: bytes) -> DataNotificationConfirm:
        """What the head-end confirms.

        Raises:
            DlmsError: it is no confirmation, or is not protected as it has to be.
        """
        found = apdus.decode(apdu)
        if isinstance(found, Protected):
            if self._security is None:
                raise SecurityError("a confirmation is ciphered, and there are no keys")
            found = apdus.decode(unwrap(self._security, found)[0])
        elif self._security is not None and not self._plain_confirmation:
            raise SecurityError("a confirmation came in plain, where pushes are protected")
        if not isinstance(found, DataNotificationConfirm):
            raise SecurityError(f"{apdus.name_of(apdu[0])} confirms nothing")
        return found


def load_push_protection(path: Path | None, system_title: bytes, counter: CounterSource) -> PushProtection:
    """The protection of one destination; none without a file.

    Raises:
        HeadEndFileError: the file cannot be read, others may read it, or it has the wrong form.
    """
    if path is None:
        return PushProtection()
    content = read_private_json(path)
    where = f"push key file {path}"
    suite, title = content.get("suite", 0), _octets(content.get("system_title"))
    if suite not in KEY_LENGTHS:
        raise HeadEndFileError(f"{where}: suite: got {suite!r}; allowed: 0, 1 or 2")
    if len(title) != _TITLE_OCTETS:
        raise HeadEndFileError(f"{where}: system_title: has to be the head-end's, 16 hexadecimal digits")
    kind = _choice(where, content, "protection", _KINDS, "general-glo-ciphering")
    establishment = _choice(where, content, "key", _ESTABLISHMENTS, "identified")
    flags = {
        name: _flag(where, content, name, default=default)
        for name, default in (
            ("authenticated", True),
            ("encrypted", True),
            ("signed", False),
            ("plain_confirmation", False),
            ("header_authenticated", True),
            ("length_signed", False),
        )
    }
    control = (SecurityControl.AUTHENTICATED if flags["authenticated"] else 0) | (
        SecurityControl.ENCRYPTED if flags["encrypted"] else 0
    )
    if not control and not flags["signed"]:
        raise HeadEndFileError(f"{where}: protects nothing; leave push.key_file empty for that")
    keys = read_keys(where, content, suite, path.parent)
    needs = {
        "signing_key_file": flags["signed"] and keys.signing is None,
        "master_key": establishment is KeyEstablishment.WRAPPED and not keys.master,
        "peer_agreement_file": establishment in (KeyEstablishment.ONE_PASS, KeyEstablishment.STATIC_UNIFIED)
        and keys.peer_agreement is None,
        "agreement_key_file": establishment is KeyEstablishment.STATIC_UNIFIED and keys.agreement is None,
    }
    needs["signing_key_file"] |= establishment is KeyEstablishment.ONE_PASS and keys.signing is None
    missing = [name for name, needed in needs.items() if needed]
    if missing or (suite == 0 and (flags["signed"] or needs["peer_agreement_file"])):
        what = ", ".join(missing) or "a suite above 0"
        raise HeadEndFileError(f"{where}: this protection needs {what}")
    security = SecurityContext(
        keys,
        system_title,
        counter,
        peer_system_title=title,
        suite=suite,
        policy=int(control),
        header_authenticated=flags["header_authenticated"],
        length_signed=flags["length_signed"],
    )
    envelope = Envelope(kind, establishment=establishment, signed=flags["signed"])
    return PushProtection(security, envelope, plain_confirmation=flags["plain_confirmation"])


def _octets(given: object) -> bytes:
    try:
        return bytes.fromhex(str(given))
    except ValueError:
        return b""


def _choice(where: str, content: dict[str, Any], name: str, choices: dict[str, Any], default: str) -> Any:  # noqa: ANN401 - one of the choices
    given = content.get(name, default)
    if given not in choices:
        raise HeadEndFileError(f"{where}: {name}: got {given!r}; allowed: {', '.join(choices)}")
    return choices[cast("str", given)]


def _flag(where: str, content: dict[str, Any], name: str, *, default: bool) -> bool:
    given = content.get(name, default)
    if not isinstance(given, bool):
        raise HeadEndFileError(f"{where}: {name}: got {given!r}; allowed: true or false")
    return given
