"""Puts together who may do what: the accounts, the sessions, and the desks that the page's requests go to."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from concentrator.access.configuration import ConfigurationFile
from concentrator.access.configuration_desk import ConfigurationDesk
from concentrator.access.desk import AccessDesk, ArchiveDesk
from concentrator.access.key_desk import KeyDesk
from concentrator.access.page_certificate import fingerprint, own_certificate
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import TokenBook
from concentrator.access.users import FIRST_USER, UserBook
from concentrator.clock import Clock
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.config import Config
from concentrator.model import MeterRecord
from concentrator.orders import Order
from concentrator.store.store import Store

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MINUTE_S = 60.0


class AccessParts(NamedTuple):
    """What the service runs of it."""

    desk: AccessDesk
    configuration: ConfigurationDesk


class Surroundings(NamedTuple):
    """What the desks touch of the service. `restart` starts it anew with the configuration as it is then."""

    store: Store
    clock: Clock
    keyring: Keyring
    key_store: KeyStore
    carry_out: Callable[[Order], Awaitable[dict[str, Any]]]
    connected: Callable[[], Collection[str]]
    destinations: Callable[[], Collection[str]]
    use_new_keys: Callable[[], None]
    met: Callable[[], Iterable[MeterRecord]]
    restart: Callable[[], None]
    archive: ArchiveDesk | None = None


def prepare_page(config: Config, clock: Clock) -> None:
    """At the service's start: the first account, told once on standard error, and the own certificate.

    Raises:
        AccessError: a file cannot be written.
    """
    password = UserBook(config.state_directory).provision()
    if password is not None:
        # The only place where it is ever told: on a box that is the journal, or the console of who started it.
        sys.stderr.write(
            f"One-time password of {FIRST_USER} for the page, to be changed at the first login: {password}\n"
        )
        sys.stderr.flush()
    if config.web.tls == "own":
        log.info("certificate of the page", sha256=fingerprint(own_certificate(config, clock.now())))


def make_access(config: Config, config_file: Path, around: Surroundings) -> AccessParts:
    """The desks of one run of the service."""
    users = UserBook(config.state_directory)
    sessions = Sessions(
        users,
        around.clock,
        config.state_directory,
        idle_s=config.web.session_idle_min * _MINUTE_S,
        longest_s=config.web.session_longest_min * _MINUTE_S,
    )
    configuration = ConfigurationDesk(
        ConfigurationFile(config_file),
        around.clock,
        around.connected,
        around.destinations,
        around.restart,
        float(config.concentrator.configuration_trial_s),
    )
    keys = KeyDesk(around.store, around.keyring, around.key_store, around.use_new_keys, around.met)
    desk = AccessDesk(
        users,
        sessions,
        TokenBook(users, around.clock, config.state_directory),
        around.store,
        around.clock,
        around.carry_out,
        configuration,
        keys,
        around.archive,
        open_view=config.web.open_view,
    )
    return AccessParts(desk, configuration)
