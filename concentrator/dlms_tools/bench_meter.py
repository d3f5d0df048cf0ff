"""The meter that a command speaks with: by a line of its own, or through the running concentrator."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from concentrator.collection.meter_orders import object_entry, object_list
from concentrator.config import load_config
from concentrator.control import request
from concentrator.dlms import axdr
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.short_name_client import ShortNameClient
from concentrator.dlms_tools.session import Session, SessionOptions, SessionUsageError, open_session
from concentrator.obis import Obis

_ASSOCIATION_LN = AttributeDescriptor(15, Obis(0, 0, 40, 0, 0, 255), 2)


class BenchMeter(ABC):
    """A meter with an open association."""

    @abstractmethod
    async def get(self, attribute: AttributeDescriptor) -> Data:
        """Read. Raises AccessError where the meter refuses."""

    @abstractmethod
    async def set(self, attribute: AttributeDescriptor, value: Data) -> None:
        """Write."""

    @abstractmethod
    async def action(self, method: MethodDescriptor, parameter: Data | None) -> Data | None:
        """Invoke; gives the answer where there is one."""

    @abstractmethod
    async def objects(self) -> list[dict[str, Any]]:
        """The objects that the association may see."""


class DirectMeter(BenchMeter):
    """Over the association of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, attribute: AttributeDescriptor) -> Data:
        """Read."""
        return await self._session.run(self._session.client.get(attribute))

    async def set(self, attribute: AttributeDescriptor, value: Data) -> None:
        """Write."""
        await self._session.run(self._session.client.set(attribute, value))

    async def action(self, method: MethodDescriptor, parameter: Data | None) -> Data | None:
        """Invoke."""
        return await self._session.run(self._session.client.action(method, parameter))

    async def objects(self) -> list[dict[str, Any]]:
        """The object list."""
        client = self._session.client
        if isinstance(client, ShortNameClient):
            names = await self._session.run(client.read_names())
            return [
                object_entry(class_id, version, obis) | {"base_name": f"{base & 0xFFFF:04X}"}
                for (class_id, obis), (base, version) in names.items()
            ]
        return object_list(await self.get(_ASSOCIATION_LN))


class CollectedMeter(BenchMeter):
    """By orders to the running concentrator, which speaks with the meter over its own network."""

    def __init__(self, socket: Path, meter: str) -> None:
        self._socket = socket
        self._meter = meter

    async def _order(self, operation: str, **arguments: object) -> dict[str, Any]:
        order = {
            "id": f"dlms-{secrets.token_hex(6)}",
            "op": operation,
            "target": self._meter,
            "args": arguments,
        }
        answer = await request(self._socket, {"op": "order", "order": order})
        return answer["result"]

    async def get(self, attribute: AttributeDescriptor) -> Data:
        """Read."""
        result = await self._order(
            "read", obis=str(attribute.obis), class_id=attribute.class_id, attribute=attribute.attribute
        )
        return axdr.decode(bytes.fromhex(result["axdr"]))

    async def set(self, attribute: AttributeDescriptor, value: Data) -> None:
        """Write."""
        await self._order(
            "write",
            obis=str(attribute.obis),
            class_id=attribute.class_id,
            attribute=attribute.attribute,
            value=value.to_bytes().hex(),
        )

    async def action(self, method: MethodDescriptor, parameter: Data | None) -> Data | None:
        """Invoke."""
        given = {} if parameter is None else {"parameter": parameter.to_bytes().hex()}
        result = await self._order(
            "action", obis=str(method.obis), class_id=method.class_id, method=method.method, **given
        )
        return axdr.decode(bytes.fromhex(result["axdr"])) if "axdr" in result else None

    async def objects(self) -> list[dict[str, Any]]:
        """The object list."""
        return (await self._order("browse"))["objects"]


@asynccontextmanager
async def open_meter(options: SessionOptions, config_file: Path | None) -> AsyncGenerator[BenchMeter]:
    """Open the way to the meter that the options name.

    Raises:
        SessionUsageError: the options do not fit together.
        ConcentratorError: the way does not lead to a meter.
    """
    if config_file is None:
        async with open_session(options) as session:
            yield DirectMeter(session)
        return
    if options.tcp or options.serial_port:
        raise SessionUsageError(
            "--config goes through the running concentrator: leave --tcp and --serial out"
        )
    if not options.meter:
        raise SessionUsageError("name the meter by --meter: its identity in the concentrator's list")
    yield CollectedMeter(load_config(config_file, ports_exist=False).control_socket, options.meter)
