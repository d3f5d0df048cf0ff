"""Delivering what a Push setup names: windows, randomisation, repetition (Blue Book, class 40). Sans-IO.

A push begins when it is triggered, waits for an open communication window and a random time more, and is sent. Where
that fails, or a confirmation that is wanted does not come, it is sent again after the repetition delay, as
often as there are retries, and only while a window is open. A trigger while a push is under way is the same push.

Times are the device's own local time, without zone, as its communication windows are.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from concentrator.dlms.apdu.notification import DataNotification, DataNotificationConfirm
from concentrator.dlms.cosem.push_setup import PushSetup, SendDestination
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.date_patterns import next_opening

_INVOKE_ID = 0x00FF_FFFF
_RANDOM = random.SystemRandom()


class DeliveryState(enum.Enum):
    """Where a push is."""

    IDLE = "idle"
    WAITING = "waiting for its time"
    SENDING = "on its way"
    AWAITING_CONFIRMATION = "waiting to be confirmed"


class Transmission(NamedTuple):
    """One APDU to send; `attempt` counts from 1."""

    destination: SendDestination
    apdu: bytes
    attempt: int


class PushDelivery:
    """The deliveries of one Push setup. `delivered` and `abandoned` count pushes, `retries` their repetitions.

    Whoever sends reports by `sent` or `failed` what became of each transmission.
    """

    def __init__(
        self,
        setup: PushSetup,
        *,
        confirmation_timeout_s: float = 60.0,
        chance: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self.setup = setup
        setup.on_reset = self.cancel
        self.state = DeliveryState.IDLE
        self.delivered = 0
        self.abandoned = 0
        self.retries = 0
        self._confirmation_timeout = timedelta(seconds=confirmation_timeout_s)
        self._chance = chance
        self._notification: DataNotification | None = None
        self._attempt = 0
        self._due: datetime | None = None
        self._outgoing: Transmission | None = None

    def trigger(self, now: datetime) -> None:
        """Push, as soon as a window is open and the random time is over.

        Raises:
            AccessError: an element of the object list does not exist.
        """
        if self.state != DeliveryState.IDLE:
            return
        self._notification = self.setup.notification()
        self._attempt = 0
        opening = next_opening(self.setup.communication_windows, now)
        if opening is None:
            self._give_up()
            return
        wait = self._chance() * self.setup.randomisation_start_interval_s
        self._wait_until(opening + timedelta(seconds=wait))
        self.handle_timeout(now)

    def cancel(self) -> None:
        """Give up what is under way, without counting it."""
        self.state, self._due, self._outgoing, self._notification = DeliveryState.IDLE, None, None, None

    def next_timeout(self) -> datetime | None:
        """When `handle_timeout` wants to be called."""
        return self._due

    def handle_timeout(self, now: datetime) -> None:
        """Time has come.

        Raises:
            EncodeError: a key that the protection takes is not set up.
            SecurityError: a system title is not known.
        """
        if self._due is None or now < self._due or self._notification is None:
            return
        if self.state == DeliveryState.AWAITING_CONFIRMATION:
            self._repeat(now)
            return
        opening = next_opening(self.setup.communication_windows, now)
        if opening is None or (opening > now and self._attempt):
            # The window closed between two attempts: what is left of them is not for the next one.
            self._give_up()
        elif opening > now:
            self._wait_until(opening)
        else:
            self._attempt += 1
            self.retries += self._attempt > 1
            self.state, self._due = DeliveryState.SENDING, None
            octets = self.setup.protected(self._notification)
            self._outgoing = Transmission(self.setup.destination, octets, self._attempt)

    def next_transmission(self) -> Transmission | None:
        """What to send now; each is given once."""
        outgoing, self._outgoing = self._outgoing, None
        return outgoing

    def sent(self, now: datetime) -> None:
        """The lower layers have delivered it."""
        if self.state != DeliveryState.SENDING:
            return
        if self.setup.confirmed:
            self.state = DeliveryState.AWAITING_CONFIRMATION
            self._due = now + self._confirmation_timeout
        else:
            self._finish()

    def failed(self, now: datetime) -> None:
        """The lower layers could not deliver it."""
        if self.state == DeliveryState.SENDING:
            self._repeat(now)

    def receive_confirmation(self, confirmation: DataNotificationConfirm, now: datetime) -> bool:
        """A data-notification-confirm came; tells whether it was for the push under way."""
        notification = self._notification
        waiting = (DeliveryState.SENDING, DeliveryState.AWAITING_CONFIRMATION, DeliveryState.WAITING)
        if notification is None or self.state not in waiting or not self._attempt:
            return False
        if (confirmation.long_invoke ^ notification.long_invoke) & _INVOKE_ID:
            return False
        self.setup.last_confirmation = CosemDateTime.from_datetime(now, None)
        self._finish()
        return True

    def _wait_until(self, due: datetime) -> None:
        self.state, self._due = DeliveryState.WAITING, due

    def _repeat(self, now: datetime) -> None:
        if self._attempt > self.setup.number_of_retries:
            self._give_up()
        else:
            self._wait_until(now + timedelta(seconds=self.setup.repetition_delay.before(self._attempt)))

    def _finish(self) -> None:
        self.delivered += 1
        self.cancel()

    def _give_up(self) -> None:
        self.abandoned += 1
        self.cancel()
