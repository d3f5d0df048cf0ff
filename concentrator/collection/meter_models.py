"""Meter models: which objects a kind of DLMS meter has, what is odd about it, and how to associate with it.

Each is a TOML file in `models/`, whose README describes them, or in the operator's own folder. A meter gets its model
when it is identified; tasks name objects by their role ("load_profile") and ask the model for their OBIS codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from concentrator.collection.errors import MeterModelError
from concentrator.collection.model_file import ROLES, ModelTables, read_model_file
from concentrator.model import MeterRecord
from concentrator.obis import Obis

FALLBACK = "any-dlms"


class MeterObject(NamedTuple):
    """One attribute of one COSEM object in a role; `name` is for people."""

    class_id: int
    obis: Obis
    attribute: int = 2
    name: str = ""


@dataclass(frozen=True, slots=True)
class MatchRule:
    """Which meters are meant: everything that is given has to fit; the patterns fit the whole text."""

    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    manufacturers: frozenset[str] = frozenset()

    @property
    def criteria(self) -> int:
        """How many things it asks for: the more, the closer it fits."""
        return len(self.patterns) + bool(self.manufacturers)

    def fits(self, record: MeterRecord) -> bool:
        """Whether a meter is one of them."""
        # Before it is identified only its name may be known, which its maker's three letters begin.
        manufacturer = record.manufacturer or record.logical_device_name[:3]
        if self.manufacturers and manufacturer not in self.manufacturers:
            return False
        texts = {
            "logical_device_name": record.logical_device_name,
            "serial": record.serial,
            "firmware": record.firmware,
            "type": record.details.get("type", ""),
        }
        return all(pattern.fullmatch(texts[name]) for name, pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where a kind of meter deviates; the defaults are what the standard says."""

    selective_access: bool = True
    get_with_list: bool = True
    clock_deviation: bool = True
    largest_pdu: int = 0  # octets; 0: as agreed on association
    mbus_identification: str = "bcd"


@dataclass(frozen=True, slots=True)
class CredentialTemplate:
    """How to associate with a kind of meter; None: as the configuration says. Never a key, only names of keys."""

    client_sap: int | None = None
    server_sap: int | None = None
    mechanism: str | None = None
    key_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class MeterModel:
    """One model; `objects` by role."""

    name: str
    title: str
    source: str
    own: bool = False  # of the operator's folder
    fallback: bool = False
    rules: tuple[MatchRule, ...] = ()
    objects: dict[str, tuple[MeterObject, ...]] = field(default_factory=dict[str, tuple[MeterObject, ...]])
    quirks: Quirks = field(default_factory=Quirks)
    credentials: CredentialTemplate = field(default_factory=CredentialTemplate)
    time_zone: ZoneInfo | None = None

    @property
    def normal_deviation(self) -> int | None:
        """Minutes from local normal time to UTC, as clocks count them; None where the model names no zone."""
        if self.time_zone is None:
            return None
        offsets = [
            datetime(2026, month, 1, tzinfo=self.time_zone).utcoffset() or timedelta() for month in (1, 7)
        ]
        return -round(min(offsets).total_seconds() / 60)

    mbus_channels: int = 0

    def fit(self, record: MeterRecord) -> int:
        """How many things the closest of its rules that fit says of a meter; 0: none fits."""
        return max((rule.criteria for rule in self.rules if rule.fits(record)), default=0)

    def key_names(self, record: MeterRecord) -> tuple[str, ...]:
        """Under which names of the key store the keys of a meter are, beside its own names."""
        values = {
            "serial": record.serial,
            "manufacturer": record.manufacturer,
            "logical_device_name": record.logical_device_name,
            "model": self.name,
        }
        return tuple(name.format(**values) for name in (*self.credentials.key_names, f"model:{self.name}"))


class ModelLibrary:
    """All models, those of the operator before those of the package."""

    def __init__(self, models: Iterable[MeterModel]) -> None:
        self._models: dict[str, MeterModel] = {}
        for model in models:
            # The first of a name counts: the operator's own.
            self._models.setdefault(model.name, model)
        self.fallback = next(
            (model for model in self._models.values() if model.fallback),
            MeterModel(FALLBACK, FALLBACK, "built in"),
        )

    @classmethod
    def load(cls, directory: Path | None = None) -> ModelLibrary:
        """The models of the package, and of a folder of the operator's.

        Raises:
            MeterModelError: a line for each mistake in any file.
        """
        own = [] if directory is None else _files(directory)
        package = resources.files("concentrator.collection") / "models"
        shipped = sorted(
            (one for one in package.iterdir() if one.name.endswith(".toml")), key=lambda one: one.name
        )
        texts = [(str(path), _content(path), True) for path in own]
        texts += [(f"models/{one.name}", one.read_bytes(), False) for one in shipped]
        return cls(_parse_all(texts))

    def __iter__(self) -> Iterator[MeterModel]:
        return iter(self._models.values())

    def named(self, name: str) -> MeterModel:
        """The model of a name; the fallback for one that there is none of (any more)."""
        return self._models.get(name, self.fallback)

    def known(self, name: str) -> bool:
        """Whether there is a model of this name."""
        return name in self._models

    def match(self, record: MeterRecord) -> MeterModel:
        """The model of a meter: the one that was set by hand, else the one that fits most closely, else the fallback.

        Of the operator's own any that fits goes before those of the package.
        """
        pinned = record.details.get("model_set", "")
        if pinned in self._models:
            return self._models[pinned]
        for own in (True, False):
            fits = [(model.fit(record), model) for model in self._models.values() if model.own is own]
            closest, model = max(fits, key=lambda one: one[0], default=(0, self.fallback))
            if closest:
                return model
        return self.fallback

    def objects_of(self, model: MeterModel | str, role: str) -> tuple[MeterObject, ...]:
        """The objects of a model in a role ("load_profile"); none where it has none.

        Raises:
            MeterModelError: there is no such role.
        """
        return objects_of(self.named(model) if isinstance(model, str) else model, role)


def objects_of(model: MeterModel, role: str) -> tuple[MeterObject, ...]:
    """The objects of a model in a role ("load_profile"); none where it has none.

    Raises:
        MeterModelError: there is no such role.
    """
    if role not in ROLES:
        raise MeterModelError(f"objects: got role {role!r}; allowed: {', '.join(ROLES)}")
    return model.objects.get(role, ())


def parse_model(content: bytes, source: str) -> MeterModel:
    """One file.

    Raises:
        MeterModelError: a line for each mistake, with file, key, what was given and what is allowed.
    """
    tables, mistakes = read_model_file(content, source)
    if mistakes:
        raise MeterModelError("\n".join(mistakes))
    return _model(tables, source)


def _parse_all(texts: Sequence[tuple[str, bytes, bool]]) -> list[MeterModel]:
    models: list[MeterModel] = []
    mistakes: list[str] = []
    for source, content, own in texts:
        try:
            models.append(replace(parse_model(content, source), own=own))
        except MeterModelError as error:
            mistakes.append(str(error))
    if mistakes:
        raise MeterModelError("\n".join(mistakes))
    return models


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MeterModelError(f"{path}: cannot be read: {error.strerror}") from None


def _files(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".toml")
    except OSError as error:
        raise MeterModelError(
            f"collection.models_directory: {directory}: cannot be read: {error.strerror}"
        ) from None


def _model(tables: ModelTables, source: str) -> MeterModel:
    rules = tuple(
        MatchRule(
            tuple((name, re.compile(text)) for name, text in rule.items() if isinstance(text, str)),
            frozenset(rule.get("manufacturer", ())),
        )
        for rule in tables.match
    )
    objects = {
        role: tuple(
            MeterObject(
                int(one.get("class_id", ROLES[role])),
                Obis.parse(str(one["obis"])),
                int(one.get("attribute", 2)),
                str(one.get("name", "")),
            )
            for one in entries
        )
        for role, entries in tables.objects.items()
    }
    template = dict(tables.credentials)
    template["key_names"] = tuple(template.get("key_names", ()))
    zone = tables.clock.get("time_zone", "")
    return MeterModel(
        name=tables.name,
        title=tables.title or tables.name,
        source=source,
        fallback=tables.fallback,
        rules=rules,
        objects=objects,
        quirks=Quirks(**tables.quirks),
        credentials=CredentialTemplate(**template),
        time_zone=ZoneInfo(zone) if zone else None,
        mbus_channels=int(tables.mbus.get("channels", 0)),
    )
