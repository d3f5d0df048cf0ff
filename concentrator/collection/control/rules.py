"""Who may order what: everybody may read; what changes a meter is given out by name, for each origin."""

from __future__ import annotations

from concentrator.collection.control.errors import NotAuthorisedError
from concentrator.collection.control.operations import CONTROL_OPERATIONS
from concentrator.config import ConfigError, OrdersSection
from concentrator.orders import LOCAL, MQTT, PAGE, Order

ALL = "all"
# Carried out by the visit itself, which knows how the meter's clock stands to ours.
SYNC_CLOCK = "sync_clock"
# What brings firmware to meters (`collection.firmware.orders`); to stop a campaign is open to all who may order.
FIRMWARE_START, FIRMWARE_RESUME = "firmware_start", "firmware_resume"
_OPERATIONS = (*CONTROL_OPERATIONS, SYNC_CLOCK, FIRMWARE_START, FIRMWARE_RESUME)


class OrderRules:
    """The table: by origin the operations that change a meter."""

    def __init__(self, allowed: dict[str, frozenset[str]]) -> None:
        self._allowed = allowed

    @classmethod
    def from_settings(cls, settings: OrdersSection) -> OrderRules:
        """As the section [orders] has it.

        Raises:
            ConfigError: an operation that is none.
        """
        return cls(
            {
                LOCAL: _operations("allow_local", settings.allow_local),
                PAGE: _operations("allow_page", settings.allow_page),
                MQTT: _operations("allow_mqtt", settings.allow_mqtt),
            }
        )

    def check(self, order: Order) -> None:
        """Whether whoever gave an order may. Raises NotAuthorisedError."""
        if not self.permits(order.origin, order.operation):
            raise NotAuthorisedError(
                f"order {order.order_id}: {order.operation} changes a meter, and is not taken from {order.origin}; "
                "the section [orders] of the configuration says from where it is"
            )

    def permits(self, origin: str, operation: str) -> bool:
        """Whether an origin may order this change. An origin that is not in the table may not."""
        return operation in self._allowed.get(origin, frozenset())


def _operations(key: str, words: str) -> frozenset[str]:
    found: set[str] = set()
    for word in words.replace(",", " ").split():
        if word == ALL:
            found |= set(_OPERATIONS)
        elif word in _OPERATIONS:
            found.add(word)
        else:
            known = ", ".join([ALL, *_OPERATIONS])
            raise ConfigError(f"orders.{key}: got {word!r}; allowed: some of {known}")
    return frozenset(found)
