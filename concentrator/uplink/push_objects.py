"""The push destinations of the configuration as Push setup objects (Blue Book, class 40, version 2).

What is set is changed in the configuration. The object list names the parts of a push by the objects that they are of:
whose it is, and the profile with name, capture objects and
buffer; scalers and qualities of its values stand under codes of ours, in a push only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, time

from concentrator.dlms.attributes import CaptureObject
from concentrator.dlms.cosem.objects import CosemObject
from concentrator.dlms.cosem.push_setup import PushObject, PushSetup, RepetitionDelay, SendDestination
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import Window
from concentrator.obis import Obis
from concentrator.uplink.management_names import PUSH_QUALITIES, PUSH_SCALERS, push_setup_name
from concentrator.uplink.push import PushUplink
from concentrator.uplink.stored_meters import LOGICAL_DEVICE_NAME

_TCP = 0
_LONGEST_DELAY_S = 3600
_DOUBLES = 200


def push_object_list(profile: Obis) -> tuple[CaptureObject, ...]:
    """What the elements of a push are, by the objects that they are of."""
    elements = (
        (1, LOGICAL_DEVICE_NAME, 2),
        (7, profile, 1),
        (7, profile, 3),
        (7, profile, 2),
        (1, PUSH_SCALERS, 2),
        (1, PUSH_QUALITIES, 2),
    )
    return tuple([CaptureObject(*element) for element in elements])


def push_setup_objects(
    uplinks: Sequence[PushUplink], profile: Obis, call: Callable[[Callable[[], None]], None]
) -> list[CosemObject]:
    """A Push setup for each destination; `call` has a function called on the event loop."""
    return [_push_setup(index, uplink, profile, call) for index, uplink in enumerate(uplinks[:254], 1)]


def _push_setup(
    index: int, uplink: PushUplink, profile: Obis, call: Callable[[Callable[[], None]], None]
) -> CosemObject:
    settings = uplink.settings
    setup = PushSetup(
        lambda _class_id, _obis: None,
        CosemDateTime().to_bytes,
        lambda _setup: call(uplink.push_now),
        version=2,
        object_list=tuple(map(PushObject, push_object_list(profile))),
        destination=SendDestination(_TCP, f"{settings.host}:{settings.port}".encode()),
        confirmed=settings.confirmed,
        obis=push_setup_name(index),
    )
    setup.randomisation_start_interval_s = settings.randomisation_s
    setup.number_of_retries = settings.retries
    setup.repetition_delay = RepetitionDelay(min(settings.retry_delay_s, 0xFFFF), _DOUBLES, _LONGEST_DELAY_S)
    setup.push_client_sap = min(settings.destination_wport, 127)
    setup.communication_windows = tuple(
        [Window(_daily(first), _daily(last)) for first, last in uplink.calendar.windows]
    )
    if uplink.confirmed_at is not None:
        setup.last_confirmation = CosemDateTime.from_datetime(uplink.confirmed_at.astimezone(UTC), 0)
    found = setup.cosem_object()
    # As configured: only pushing is asked for here.
    found.setters.clear()
    found.methods.pop(2, None)
    return found


def _daily(at: time) -> CosemDateTime:
    """This time of every day."""
    return CosemDateTime(hour=at.hour, minute=at.minute, second=0)
