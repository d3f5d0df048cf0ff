"""The control operations by name: how each is made from its arguments, and how dangerous it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from concentrator.collection.control import (
    billing,
    display_and_load,
    key_change,
    limiter,
    prepayment,
    profile_setup,
    raw,
    switch,
    tariff,
    token_entry,
)
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import Command
from concentrator.dlms.client import Client, Conversation
from concentrator.orders import Order

Make = Callable[[Arguments], Command]
CONFIRM = "confirm"


class ControlOperation(NamedTuple):
    """An operation that changes a meter. `dangerous` ones need the meter's identity repeated in `confirm`.

    `recall` makes the command from the arguments that were kept of it, where these lack a secret.
    """

    make: Make
    dangerous: bool = False
    recall: Make | None = None
    changes_meter: bool = True

    def prepare(self, order: Order) -> Command:
        """The command of an order.

        Raises:
            OrderError: its arguments are wrong, or it is not confirmed.
        """
        given = dict(order.arguments)
        confirmation = given.pop(CONFIRM, None)
        arguments = Arguments(given, f"order {order.order_id}: args")
        command = self.make(arguments)
        if self.dangerous and confirmation != order.target:
            # After the others: whoever confirms should know that the rest is right.
            raise Arguments(
                {CONFIRM: confirmation} if confirmation is not None else {}, f"order {order.order_id}: args"
            ).mistake(CONFIRM, f"the meter's identity again, as {order.operation} cannot be taken back")
        return command

    def from_record(self, recorded: dict[str, Any], where: str) -> Command:
        """The command as the audit trail keeps it. Raises OrderError."""
        return (self.recall or self.make)(Arguments(recorded, where))


CONTROL_OPERATIONS: dict[str, ControlOperation] = {
    "disconnect": ControlOperation(switch.make_disconnect, dangerous=True),
    "reconnect": ControlOperation(switch.make_reconnect, dangerous=True),
    "set_control_mode": ControlOperation(switch.make_set_control_mode, dangerous=True),
    "set_limiter": ControlOperation(limiter.make_set_limiter, dangerous=True),
    "set_emergency_profile": ControlOperation(limiter.make_set_emergency_profile, dangerous=True),
    "set_contracted_power": ControlOperation(limiter.make_set_contracted_power, dangerous=True),
    "set_tariff": ControlOperation(tariff.make_set_tariff),
    "activate_tariff": ControlOperation(tariff.make_activate_tariff),
    "set_special_days": ControlOperation(tariff.make_set_special_days),
    "reset_billing": ControlOperation(billing.make_reset_billing, dangerous=True),
    "enter_token": ControlOperation(token_entry.make_enter_token, recall=token_entry.recall_enter_token),
    "set_account": ControlOperation(prepayment.make_set_account, dangerous=True),
    "set_credit": ControlOperation(prepayment.make_set_credit, dangerous=True),
    "set_charge": ControlOperation(prepayment.make_set_charge, dangerous=True),
    "set_capture_period": ControlOperation(profile_setup.make_set_capture_period, dangerous=True),
    "set_profile": ControlOperation(profile_setup.make_set_profile, dangerous=True),
    "change_keys": ControlOperation(key_change.make_change_keys, dangerous=True),
    "show_message": ControlOperation(display_and_load.make_show_message),
    "run_script": ControlOperation(display_and_load.make_run_script, dangerous=True),
    "set_schedule": ControlOperation(display_and_load.make_set_schedule, dangerous=True),
    "set_relay_schedule": ControlOperation(display_and_load.make_set_relay_schedule, dangerous=True),
    "write": ControlOperation(raw.make_write, recall=raw.recall_write),
    "action": ControlOperation(raw.make_action, recall=raw.recall_action),
}

READ_OPERATIONS: dict[str, Callable[[Client, Arguments], Conversation[dict[str, Any]]]] = {
    "read_switch": switch.read_state,
    "read_limiter": limiter.read_limiter,
    "read_tariff": tariff.read_tariff,
    "read_billing": billing.read_billing,
    "read_prepayment": prepayment.read_prepayment,
}
