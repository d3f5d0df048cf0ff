"""How to associate with a meter: what the configuration says, its model, and the keys that there are for it."""

from __future__ import annotations

from concentrator.collection.errors import KeysMissingError
from concentrator.collection.keyring import Keyring, MeterKeys, Standing
from concentrator.collection.meter_models import MeterModel
from concentrator.config import CollectionSection
from concentrator.dlms.client import DEFAULT_CONFORMANCE, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism, Conformance
from concentrator.dlms.envelopes import KeyEstablishment
from concentrator.model import MeterRecord

NO_AUTHENTICATION, LOW, HLS_GMAC = "none", "low", "hls-gmac"
# Tag, lengths, security header, counter, authentication tag and a system title. The PDU size that was agreed bounds
# an APDU with all that; some meters do not count it, and the modem drops what is too long without a word.
_CIPHERING_MARGIN_OCTETS = 40


def mechanism_of(model: MeterModel, settings: CollectionSection) -> str:
    """`none`, `low` or `hls-gmac`: the model's, else the configuration's."""
    return model.credentials.mechanism or settings.authentication


def names_of(model: MeterModel, record: MeterRecord, joined_as: str) -> tuple[str, ...]:
    """The names that a meter's keys may be under."""
    return (
        record.identity,
        record.serial,
        joined_as,
        record.link_address,
        record.logical_device_name,
        *model.key_names(record),
    )


def key_candidates(
    model: MeterModel, settings: CollectionSection, keyring: Keyring, record: MeterRecord, joined_as: str
) -> list[MeterKeys | None]:
    """The keys to try, the likeliest first; None for a mechanism without.

    Raises:
        KeysMissingError: there are none.
        KeyFileError: its entry in the key store is damaged.
    """
    if mechanism_of(model, settings) != HLS_GMAC:
        return [None]
    found = keyring.candidates(*names_of(model, record, joined_as))
    if not found:
        raise KeysMissingError(
            f"no keys for meter {record.identity} (EUI {record.link_address}): import them, or add them to the key file"
        )
    return list(found)


def client_settings(  # noqa: PLR0913 - all that an association follows from
    model: MeterModel,
    settings: CollectionSection,
    keyring: Keyring,
    record: MeterRecord,
    joined_as: str,
    largest_apdu: int,
    keys: MeterKeys | None = None,
) -> ClientSettings:
    """How to associate with one meter.

    Args:
        model: what is known of its kind.
        settings: what holds where the model says nothing.
        keyring: where its keys are, under its serial number, EUI, logical device name, or a name that the model gives.
        record: the meter.
        joined_as: the text that its node told when it joined, "" for none.
        largest_apdu: what the network carries, in octets.
        keys: those of `key_candidates` to try.

    Raises:
        KeysMissingError: its mechanism needs a password that there is none of.
        KeyFileError: its entry in the key store is damaged.
    """
    template, quirks = model.credentials, model.quirks
    client_sap = template.client_sap or settings.client_sap
    server_sap = template.server_sap or settings.server_sap
    largest = min(largest_apdu, quirks.largest_pdu or largest_apdu)
    conformance = DEFAULT_CONFORMANCE
    if not quirks.get_with_list:
        conformance &= ~Conformance.MULTIPLE_REFERENCES
    if not quirks.selective_access:
        conformance &= ~Conformance.SELECTIVE_ACCESS
    if keys is not None:
        recovery = keys.standing is Standing.RECOVERY
        return ClientSettings(
            client_sap,
            server_sap,
            mechanism=keys.mechanism,
            keys=keys.security_keys(),
            system_title=bytes.fromhex(settings.system_title),
            meter_system_title=keys.meter_system_title,
            security_suite=keys.suite,
            max_pdu_size=largest - _CIPHERING_MARGIN_OCTETS,
            key_establishment=KeyEstablishment.WRAPPED if recovery else None,
            conformance=conformance | (Conformance.GENERAL_PROTECTION if recovery else Conformance.NONE),
        )
    if mechanism_of(model, settings) == LOW:
        names = names_of(model, record, joined_as)
        password = keyring.secret("password", *names)
        if password is None:
            raise KeysMissingError(
                f"no password for meter {record.identity} (EUI {record.link_address}), of model {model.name}: import it"
            )
        return ClientSettings(
            client_sap,
            server_sap,
            mechanism=AuthenticationMechanism.LLS,
            secret=password,
            max_pdu_size=largest,
            conformance=conformance,
        )
    return ClientSettings(client_sap, server_sap, max_pdu_size=largest, conformance=conformance)
