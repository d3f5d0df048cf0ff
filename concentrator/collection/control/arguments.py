"""The arguments of an order: taken one by one, each mistake told in one line with what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from concentrator.collection.control import times
from concentrator.obis import Obis, ObisError
from concentrator.orders import Order, OrderError

Choice = TypeVar("Choice")
_LONGEST_SHOWN = 60


class Arguments:
    """A JSON object of an order. What is never taken is a mistake too: see `finish`."""

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        self._given = dict(given)
        self._where = where
        self._taken: list[str] = []

    @classmethod
    def of(cls, order: Order) -> Arguments:
        """Those of a whole order."""
        return cls(order.arguments, f"order {order.order_id}: args")

    def mistake(self, name: str, allowed: str, *, shown: bool = True) -> OrderError:
        """The error that tells what was given and what is allowed; `shown` is false for what may be a secret."""
        place = f"{self._where}: {name}" if name else self._where
        if name and name not in self._given:
            return OrderError(f"{place}: missing; allowed: {allowed}")
        if not shown:
            return OrderError(f"{place}: not as it has to be; allowed: {allowed}")
        value = repr(self._given[name] if name else self._given)
        short = value if len(value) <= _LONGEST_SHOWN else value[: _LONGEST_SHOWN - 3] + "..."
        return OrderError(f"{place}: got {short}; allowed: {allowed}")

    def has(self, name: str) -> bool:
        """Whether it was given."""
        return self._given.get(name) is not None

    def _take(self, name: str) -> object:
        self._taken.append(name)
        return self._given.get(name)

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number; must be given where there is no default. Raises OrderError."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise self.mistake(name, f"a whole number from {low} to {high}")

    def optional_number(self, name: str, low: int, high: int) -> int | None:
        """A whole number, or None where it is not given. Raises OrderError."""
        return self.number(name, low, high) if self.has(name) else self._nothing(name)

    def _nothing(self, name: str) -> None:
        self._taken.append(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false. Raises OrderError."""
        value = self._take(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self.mistake(name, "true or false")

    def text(self, name: str, longest: int, default: str | None = None, *, least: int = 0) -> str:
        """Text of so many octets in UTF-8 at most. Raises OrderError."""
        value = self._take(name)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and least <= len(value.encode("utf-8", "surrogatepass")) <= longest:
            return value
        raise self.mistake(name, f"text of {least} to {longest} octets")

    def secret(self, name: str) -> str:
        """Text that no message repeats; "" where it is not text."""
        value = self._take(name)
        return value if isinstance(value, str) else ""

    def choice(
        self, name: str, choices: Mapping[str, Choice] | Sequence[Choice], default: str | None = None
    ) -> Choice:
        """One of some words, or what it stands for. Raises OrderError."""
        value = self._take(name)
        known = choices if isinstance(choices, Mapping) else {str(one): one for one in choices}
        word = default if value is None else value
        if isinstance(word, str) and word in known:
            return known[word]
        raise self.mistake(name, "one of " + ", ".join(known))

    def obis(self, name: str, default: str | None = None) -> Obis:
        """A logical name. Raises OrderError."""
        value = self._take(name)
        try:
            return Obis.parse(str(default if value is None and default is not None else value))
        except ObisError:
            raise self.mistake(name, "an OBIS code such as 0-0:96.3.10*255") from None

    def date_time(self, name: str) -> bytes:
        """The 12 octets of a moment: see `times`. Raises OrderError."""
        value = self._take(name)
        try:
            return times.parse_date_time(str(value))
        except ValueError:
            raise self.mistake(name, times.DATE_TIME_WORDS) from None

    def date(self, name: str) -> bytes:
        """The five octets of a date: see `times`. Raises OrderError."""
        value = self._take(name)
        try:
            return times.parse_date(str(value))
        except ValueError:
            raise self.mistake(name, times.DATE_WORDS) from None

    def time(self, name: str) -> bytes:
        """The four octets of a time of day: see `times`. Raises OrderError."""
        value = self._take(name)
        try:
            return times.parse_time(str(value))
        except ValueError:
            raise self.mistake(name, times.TIME_WORDS) from None

    def plain(self, name: str) -> int | str | bool | None:
        """A number, a text, true or false; None where it is not given. Raises OrderError."""
        value = self._take(name)
        if value is None or isinstance(value, int | str | bool):
            return value
        raise self.mistake(name, "a whole number, text, true or false")

    def numbers(self, name: str, low: int, high: int, most: int) -> list[int]:
        """A list of whole numbers. Raises OrderError."""
        value = self._take(name)
        allowed = f"a list of up to {most} whole numbers from {low} to {high}"
        if not isinstance(value, list) or len(cast("list[object]", value)) > most:
            raise self.mistake(name, allowed)
        items = cast("list[object]", value)
        found = [item for item in items if isinstance(item, int) and not isinstance(item, bool)]
        if len(found) != len(items) or not all(low <= item <= high for item in found):
            raise self.mistake(name, allowed)
        return found

    def words(self, name: str, choices: Sequence[str], default: Sequence[str]) -> list[str]:
        """A list of some of these words, none twice. Raises OrderError."""
        value = self._take(name)
        if value is None:
            return list(default)
        items = cast("list[object]", value) if isinstance(value, list) else []
        found = [item for item in items if isinstance(item, str) and item in choices]
        if not found or len(found) != len(items) or len(set(found)) != len(found):
            raise self.mistake(name, f"a list of some of {', '.join(choices)}")
        return found

    def objects(self, name: str, least: int, most: int) -> list[Arguments]:
        """A list of JSON objects. Raises OrderError."""
        value = self._take(name)
        items = cast("list[object]", value) if isinstance(value, list) else None
        if items is None or not least <= len(items) <= most:
            raise self.mistake(name, f"a list of {least} to {most} JSON objects")
        return [self._nested(f"{name}[{number}]", item) for number, item in enumerate(items, 1)]

    def object(self, name: str) -> Arguments:
        """A JSON object within. Raises OrderError."""
        value = self._take(name)
        if value is None:
            raise self.mistake(name, "a JSON object")
        return self._nested(name, value)

    def _nested(self, name: str, item: object) -> Arguments:
        place = f"{self._where}: {name}"
        if not isinstance(item, dict):
            raise OrderError(f"{place}: got {str(item)[:_LONGEST_SHOWN]!r}; allowed: a JSON object")
        return Arguments(cast("dict[str, Any]", item), place)

    def finish(self) -> None:
        """Everything was taken: what is left is unknown. Raises OrderError."""
        unknown = sorted(set(self._given) - set(self._taken))
        if unknown:
            known = ", ".join(dict.fromkeys(self._taken)) or "none"
            raise OrderError(f"{self._where}: {', '.join(unknown)}: unknown; allowed: {known}")
