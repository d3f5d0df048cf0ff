"""Who may order what: everybody may read; what changes a meter is given out by name, for each origin."""

from __future__ import annotations

from concentrator.collection.control.operations import CONTROL_OPERATIONS
from concentrator.config import ConfigError, OrdersSection
from concentrator.orders import LOCAL, MQTT, PAGE

ALL = "all"


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

    def permits(self, origin: str, operation: str) -> bool:
        """Whether an origin may order this change. An origin that is not in the table may not."""
        return operation in self._allowed.get(origin, frozenset())


def _operations(key: str, words: str) -> frozenset[str]:
    found: set[str] = set()
    for word in words.replace(",", " ").split():
        if word == ALL:
            found |= CONTROL_OPERATIONS.keys()
        elif word in CONTROL_OPERATIONS:
            found.add(word)
        else:
            known = ", ".join([ALL, *CONTROL_OPERATIONS])
            raise ConfigError(f"orders.{key}: got {word!r}; allowed: some of {known}")
    return frozenset(found)
