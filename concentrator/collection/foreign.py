"""Whose meter is it? Those of another utility are listed and left alone: no key of ours is ever tried on them.

A meter is foreign when the network declines its node (whitelist), when it is none of `collection.own_meters`, when it
has refused us `collection.foreign_after_refusals` times in a row, or when an order says so. The first two end by
themselves when the rule changes; the others when an order says so.
"""

from __future__ import annotations

import re

from concentrator.collection.errors import CollectionError
from concentrator.config import CollectionSection
from concentrator.errors import LocalError
from concentrator.model import MeterRecord, MeterState

# Why a meter is foreign, in `MeterRecord.details["foreign"]`.
BY_WHITELIST, BY_RULE, BY_REFUSAL, BY_ORDER = "whitelist", "own_meters", "refusals", "order"
DETAIL = "foreign"


def mark(record: MeterRecord, why: str, reason: str) -> None:
    """Leave a meter alone from now on; `why` is one of the words above."""
    record.state, record.reason = MeterState.FOREIGN, reason
    record.details[DETAIL] = why


def end(record: MeterRecord) -> None:
    """A meter is ours after all."""
    record.details.pop(DETAIL, None)
    if record.state is MeterState.FOREIGN:
        record.state, record.reason = MeterState.DISCOVERED, ""


class ForeignMeterError(CollectionError, LocalError):
    """A meter said who it is, and it is none of ours."""


class OwnMeters:
    """The rule of `collection.own_meters`: a regular expression for a serial number or logical device name."""

    def __init__(self, settings: CollectionSection) -> None:
        self._pattern = re.compile(settings.own_meters) if settings.own_meters else None

    def judge(self, record: MeterRecord) -> str:
        """Why a meter that has said who it is is foreign; "" for ours, and for one that has said nothing yet."""
        names = [name for name in (record.serial, record.logical_device_name) if name]
        if self._pattern is None or not names or any(self._pattern.fullmatch(name) for name in names):
            return ""
        return f"none of collection.own_meters: serial number {record.serial!r}, name {record.logical_device_name!r}"

    def check(self, record: MeterRecord) -> None:
        """Raise ForeignMeterError for a meter that is none of ours."""
        if reason := self.judge(record):
            raise ForeignMeterError(reason)
