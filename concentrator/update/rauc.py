"""Installs a signed bundle by asking RAUC over D-Bus (interface de.pengutronix.rauc.Installer).

RAUC checks the signature and the device's `compatible` and writes the slot that does not run; here is
only asked, watched and told in words what came of it. Restarting into the new slot is someone else's
decision. The bus is the system's; DBUS_STARTER_BUS_TYPE=session, as RAUC itself reads it, changes that.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError, InvalidAddressError

_SERVICE = "de.pengutronix.rauc"
_INSTALLER = "de.pengutronix.rauc.Installer"
_PATH = "/"
_BUS = "org.freedesktop.DBus"
_BUS_PATH = "/org/freedesktop/DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_NO_SUCH_SERVICE = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ExecFailed",
    "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
)
_ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
DEFAULT_TIMEOUT_S = 1800.0
_LOOK_TIMEOUT_S = 10.0

ProgressCallback = Callable[[int, str], None]


class InstallState(enum.StrEnum):
    """How an installation ended."""

    INSTALLED = "installed"
    FILE_MISSING = "file_missing"
    SIGNATURE_REFUSED = "signature_refused"
    INCOMPATIBLE = "incompatible"
    DAMAGED = "damaged"
    BUSY = "busy"
    FAILED = "failed"
    RAUC_MISSING = "rauc_missing"
    BUS_MISSING = "bus_missing"
    ACCESS_DENIED = "access_denied"


@dataclass(frozen=True, slots=True)
class InstallOutcome:
    """What came of it: `slot` now holds the bundle and boots next; `message` is for people."""

    state: InstallState
    message: str
    slot: str = ""

    @property
    def installed(self) -> bool:
        """Whether the bundle is in place."""
        return self.state is InstallState.INSTALLED


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: `state` is booted, active or inactive; `boot_status` good or bad, or "" where no boot loader tells."""

    name: str
    state: str
    bootname: str = ""
    boot_status: str = ""
    version: str = ""
    installed_at: str = ""
    is_next: bool = False


def _no_slots() -> list[Slot]:
    return []


@dataclass(frozen=True, slots=True)
class SystemState:
    """What RAUC says of this device; `reason` is why it says nothing. `operation` is idle or what it does now."""

    reason: str = ""
    compatible: str = ""
    operation: str = ""
    booted: str = ""
    last_error: str = ""
    slots: list[Slot] = field(default_factory=_no_slots)


# What RAUC's last error says, and what that means; the first row that fits is taken.
_REFUSALS: tuple[tuple[str, InstallState, str], ...] = (
    ("compatible mismatch", InstallState.INCOMPATIBLE, "the bundle is for another device"),
    ("invalid bundle format", InstallState.DAMAGED, "the file is no bundle, or was cut off"),
    ("signature", InstallState.SIGNATURE_REFUSED, "the signature is not valid here"),
    ("verify error", InstallState.SIGNATURE_REFUSED, "the signature is not valid here"),
    ("certificate", InstallState.SIGNATURE_REFUSED, "the signer is not trusted here"),
    ("checksum", InstallState.DAMAGED, "the content is damaged"),
    ("digest", InstallState.DAMAGED, "the content is damaged"),
    ("already", InstallState.BUSY, "another installation is running"),
)


async def install_bundle(
    path: str | Path,
    *,
    progress: ProgressCallback | None = None,
    bus: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> InstallOutcome:
    """Let RAUC install the bundle at `path` and wait until it has.

    Args:
        path: of the bundle's file.
        progress: called with a percentage and RAUC's words for the step.
        bus: "system" or "session"; by default as DBUS_STARTER_BUS_TYPE says, else the system's.
        timeout_s: after which an installation is given up as failed.
    """
    bundle = Path(path).absolute()  # noqa: ASYNC240 - one look at a local path
    if not bundle.is_file():
        return InstallOutcome(InstallState.FILE_MISSING, f"there is no file {bundle}")
    kind = bus or os.environ.get("DBUS_STARTER_BUS_TYPE", "system")
    try:
        connection = await _connect(kind)
    except (OSError, AuthError, InvalidAddressError, EOFError) as error:
        return InstallOutcome(InstallState.BUS_MISSING, f"the D-Bus {kind} bus cannot be reached: {error}")
    try:
        return await _Installation(connection, progress).run(bundle, timeout_s)
    finally:
        connection.disconnect()


async def inspect_bundle(path: str | Path, *, bus: str | None = None) -> InstallOutcome:
    """Let RAUC check the signature of the bundle at `path`, and that it is for this device; nothing is installed.

    `installed` then means that it could be; the message is the bundle's version.
    """
    bundle = Path(path).absolute()  # noqa: ASYNC240 - one look at a local path
    if not bundle.is_file():
        return InstallOutcome(InstallState.FILE_MISSING, f"there is no file {bundle}")
    try:
        connection = await _connect(bus)
    except (OSError, AuthError, InvalidAddressError, EOFError) as error:
        return InstallOutcome(InstallState.BUS_MISSING, f"the D-Bus bus cannot be reached: {error}")
    try:
        return await _Installation(connection, None).inspect(bundle)
    finally:
        connection.disconnect()


async def read_system(*, bus: str | None = None) -> SystemState:
    """What RAUC knows of the device; nothing is changed. Where nobody can be asked, the reason in words."""
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            connection = await _connect(bus)
            try:
                return await _Installation(connection, None).system()
            finally:
                connection.disconnect()
    except TimeoutError:
        return SystemState(f"RAUC did not answer within {_LOOK_TIMEOUT_S:g} s")
    except (OSError, AuthError, InvalidAddressError, EOFError) as error:
        words = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        return SystemState(f"the D-Bus bus cannot be reached: {words}")


async def _connect(bus: str | None) -> MessageBus:
    kind = bus or os.environ.get("DBUS_STARTER_BUS_TYPE", "system")
    return await MessageBus(bus_type=BusType.SESSION if kind == "session" else BusType.SYSTEM).connect()


class _Installation:
    """One installation over one bus connection."""

    def __init__(self, connection: MessageBus, progress: ProgressCallback | None) -> None:
        self._connection = connection
        self._progress = progress
        self._completed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self, bundle: Path, timeout_s: float) -> InstallOutcome:
        try:
            self._connection.add_message_handler(self._handle)
            rule = f"type='signal',sender='{_SERVICE}',path='{_PATH}'"
            await self._call(
                "AddMatch",
                "s",
                [rule],
                "org.freedesktop.DBus",
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
            )
            await self._call("InstallBundle", "sa{sv}", [str(bundle), {}], _INSTALLER)
            result = await self._wait(timeout_s)
            if result == 0:
                slot = await self._primary_slot()
                return InstallOutcome(InstallState.INSTALLED, f"installed into slot {slot}", slot)
            return explain_refusal(await self._last_error())
        except DBusError as error:
            return _explain_bus_error(error)
        except TimeoutError:
            return InstallOutcome(InstallState.FAILED, f"RAUC did not end within {timeout_s:g} s")

    async def inspect(self, bundle: Path) -> InstallOutcome:
        try:
            operation = await self._property("Operation")
            if operation != "idle":
                return InstallOutcome(InstallState.BUSY, f"RAUC is busy: {operation}")
            compatible, version = await self._call("Info", "s", [str(bundle)], _INSTALLER)
            wanted = await self._property("Compatible")
            if compatible != wanted:
                return InstallOutcome(
                    InstallState.INCOMPATIBLE, f"the bundle is for {compatible}, this is {wanted}"
                )
            return InstallOutcome(InstallState.INSTALLED, str(version))
        except DBusError as error:
            return _explain_bus_error(error)

    async def system(self) -> SystemState:
        try:
            (told,) = await self._call("GetAll", "s", [_INSTALLER], _PROPERTIES)
            (slots,) = await self._call("GetSlotStatus", "", [], _INSTALLER)
            try:
                following = await self._primary_slot()
            except DBusError:
                # Not every boot loader can tell.
                following = ""
        except DBusError as error:
            return SystemState(_explain_bus_error(error).message)
        names = {
            name: str(_value(told, name)) for name in ("Compatible", "Operation", "BootSlot", "LastError")
        }
        return SystemState(
            "",
            names["Compatible"],
            names["Operation"],
            names["BootSlot"],
            names["LastError"],
            [_slot(name, about, is_next=name == following) for name, about in slots],
        )

    async def _property(self, name: str) -> str:
        body = await self._call("Get", "ss", [_INSTALLER, name], _PROPERTIES)
        return str(body[0].value)

    async def _wait(self, timeout_s: float) -> int:
        """Wait for RAUC's signal; it must not leave the bus meanwhile."""
        async with asyncio.timeout(timeout_s):
            while True:
                done, _ = await asyncio.wait([self._completed], timeout=2.0)
                if done:
                    return self._completed.result()
                await self._call("GetAll", "s", [_INSTALLER], _PROPERTIES)

    def _handle(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.interface == _INSTALLER and message.member == "Completed":
            if not self._completed.done():
                self._completed.set_result(int(message.body[0]))
        elif message.interface == _PROPERTIES and message.member == "PropertiesChanged":
            changed = cast("Mapping[str, Variant]", message.body[1])
            if self._progress is not None and "Progress" in changed:
                percentage, words, _ = changed["Progress"].value
                self._progress(int(percentage), str(words))

    async def _last_error(self) -> str:
        return await self._property("LastError")

    async def _primary_slot(self) -> str:
        return str((await self._call("GetPrimary", "", [], _INSTALLER))[0])

    async def _call(
        self,
        member: str,
        signature: str,
        body: list[Any],
        interface: str,
        destination: str = _SERVICE,
        path: str = _PATH,
    ) -> list[Any]:
        reply = await self._connection.call(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=body,
            )
        )
        if reply.message_type is MessageType.ERROR:
            raise DBusError(reply.error_name or "", str(reply.body[0]) if reply.body else "")
        return reply.body


def _value(told: Mapping[str, Variant], name: str) -> object:
    return told[name].value if name in told else ""


def _slot(name: str, about: Mapping[str, Variant], *, is_next: bool) -> Slot:
    installed_at = str(_value(about, "installed.timestamp"))
    try:
        datetime.fromisoformat(installed_at)
    except ValueError:
        installed_at = ""
    return Slot(
        name,
        str(_value(about, "state")),
        str(_value(about, "bootname")),
        str(_value(about, "boot-status")),
        str(_value(about, "bundle.version")),
        installed_at,
        is_next,
    )


def explain_refusal(last_error: str) -> InstallOutcome:
    """Give RAUC's own words a state that a program can act on."""
    lowered = last_error.lower()
    for needle, state, words in _REFUSALS:
        if needle in lowered:
            return InstallOutcome(state, f"{words}: {last_error}")
    return InstallOutcome(InstallState.FAILED, last_error or "RAUC gave no reason")


def _explain_bus_error(error: DBusError) -> InstallOutcome:
    if error.type in _NO_SUCH_SERVICE:
        return InstallOutcome(InstallState.RAUC_MISSING, f"RAUC is not running: {error.text}")
    if error.type == _ACCESS_DENIED:
        return InstallOutcome(InstallState.ACCESS_DENIED, f"this user may not ask RAUC: {error.text}")
    return explain_refusal(error.text)
