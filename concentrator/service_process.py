"""The process around the service: what has to be there, the store that is waited for, the page beside it, the end.

A store that cannot be opened is waited for, one that is found damaged is opened anew; the page is a process of its own,
and is started again when it ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
import time
from pathlib import Path

import structlog

from concentrator import instance_lock
from concentrator.app import Service
from concentrator.clock import SystemClock
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_tasks import TaskError
from concentrator.collection.validation import Validator
from concentrator.config import Config, ConfigError
from concentrator.logs import set_up_logging
from concentrator.orders import LOCAL
from concentrator.page_access import prepare_page
from concentrator.store.errors import StoreUnavailableError
from concentrator.store.store import Store
from concentrator.tasks import until_first_ends
from concentrator.web.parent import DIES_WITH_PARENT

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_STORE_RETRY_S = 5.0
_PAGE_STOP_TIMEOUT_S = 2.0
_PAGE_RESTART_DELAY_S = 2.0
_PAGE_PORT_PATIENCE_S = 1.5
# Exit status that stands for: start the program anew, the configuration has changed.
RESTART = -1


async def run_service(
    config: Config, config_file: Path, *, with_page: bool, taken_back: str = "", restored: str = ""
) -> int:
    """Run the concentrator until SIGTERM or SIGINT; returns the exit status, or RESTART.

    `taken_back` is why a configuration was taken back before this start, `restored` which backup was put in place.

    Raises:
        ConfigError: a port is in use, or a folder cannot be written.
        InUseError: another service works with the state directory.
        StoreError: the store cannot be opened.
        KeyFileError: the key file cannot be used.
        AccessError: the accounts or the page's certificate cannot be made.
    """
    set_up_logging(config.concentrator.log_level)
    with_page = with_page and config.web.enabled
    _check_state_directory(config, config_file)
    if with_page:
        _check_page_port(config, config_file)
    key_file = config.collection.key_file
    key_store = KeyStore(config.state_directory)
    key_store.unlock()
    keyring = Keyring.load(
        Path(key_file) if key_file else None, config.state_directory / "meter_keys.json", key_store
    )
    if config.web.enabled:
        prepare_page(config, SystemClock())
    running = _Running(config, config_file, key_store, keyring, taken_back, restored, with_page=with_page)
    with instance_lock.hold(config.state_directory):
        await until_first_ends(running.run(), _until_told_to_stop(running.restart_wanted))
    if running.restart_wanted.is_set():
        log.info("starting anew")
        return RESTART
    log.info("stopped")
    return 0


class _Running:
    """One run of the process: a service on the store, and another when the store had to be opened anew."""

    def __init__(  # noqa: PLR0913 - what the service is made of
        self,
        config: Config,
        config_file: Path,
        key_store: KeyStore,
        keyring: Keyring,
        taken_back: str,
        restored: str,
        *,
        with_page: bool,
    ) -> None:
        self.restart_wanted = asyncio.Event()
        self._config = config
        self._config_file = config_file
        self._key_store = key_store
        self._keyring = keyring
        self._taken_back = taken_back
        self._restored = restored
        self._with_page = with_page
        self._clock = SystemClock()

    async def run(self) -> None:
        """Wait for a store that cannot be opened yet, and open a damaged one anew."""
        validator = Validator.from_settings(self._config.validation)
        while True:
            try:
                store = Store(self._config.store_file, self._clock, validator)
                try:
                    await self._run_on(store)
                finally:
                    store.close()
            except StoreUnavailableError as error:
                # Ending the process would only have it started again and again.
                log.error("the store cannot be used, trying again", state=error.state, reason=str(error))
                await asyncio.sleep(_STORE_RETRY_S)

    async def _run_on(self, store: Store) -> None:
        """Run the service on an open store; ends when that is found damaged: opened anew, it is set aside."""
        config = self._config
        if store.set_aside is not None:
            await store.add_events(
                [("store_set_aside", f"the file was damaged and is now {store.set_aside.name}", "")]
            )
        await store.retire_destinations(one.name for one in config.destinations)
        try:
            service = Service(config, store, self._clock, await store.boot_id(), self._keyring)
        except TaskError as error:
            raise ConfigError(f"{self._config_file}: {error}") from None
        service.restart_wanted = self.restart_wanted
        await service.prepare()
        service.open_to_page(self._config_file, self._key_store)
        if self._taken_back and service.access is not None:
            await service.access.desk.note("configuration_revert", LOCAL, "done", self._taken_back)
            self._taken_back = ""
        if self._restored:
            await store.add_events([("restored", self._restored, "")])
            if service.access is not None:
                await service.access.desk.note("restore", LOCAL, "done", self._restored)
            self._restored = ""
        page = (_keep_page(self._config_file),) if self._with_page else ()
        await until_first_ends(service.run(*page), store.until_damaged())


async def _until_told_to_stop(restart_wanted: asyncio.Event) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await until_first_ends(_waited(stop), _waited(restart_wanted))


async def _waited(event: asyncio.Event) -> None:
    await event.wait()


def _check_state_directory(config: Config, config_file: Path) -> None:
    folder = config.state_directory
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
        reason = "this user may not write there"
    except OSError as error:
        writable, reason = False, error.strerror or str(error)
    if not writable and not _is_mounted_read_only(folder):
        raise ConfigError(
            f"{config_file}: concentrator.state_directory: got '{folder}': {reason}; "
            "allowed: a folder that this user can make and write"
        )


def _is_mounted_read_only(folder: Path) -> bool:
    """Whether the file system is, as after an error of the card: that passes, and is waited for."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _check_page_port(config: Config, config_file: Path) -> None:
    web = config.web
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    deadline = time.monotonic() + _PAGE_PORT_PATIENCE_S
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((web.host, web.port))
            except OSError as error:
                # The page of a service that was killed a moment ago may still be on its way out.
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise ConfigError(
                        f"{config_file}: web.port: got {web.port} on {web.host}: {error.strerror}; "
                        "allowed: a port that is free and that this user may open"
                    ) from None
            else:
                return
        time.sleep(0.1)


async def _keep_page(config_file: Path) -> None:
    """Run the page as a process of its own, and start it again when it ends."""
    while True:
        page = await asyncio.create_subprocess_exec(
            sys.executable,
            # Without the folder that the service happens to run in on the path of modules.
            "-P",
            "-m",
            "concentrator",
            "page",
            "--config",
            str(config_file),
            env={**os.environ, DIES_WITH_PARENT: str(os.getpid())},
        )
        try:
            status = await page.wait()
        except asyncio.CancelledError:
            page.terminate()
            try:
                async with asyncio.timeout(_PAGE_STOP_TIMEOUT_S):
                    await page.wait()
            except TimeoutError:
                page.kill()
            raise
        log.warning("the page ended", status=status)
        await asyncio.sleep(_PAGE_RESTART_DELAY_S)
