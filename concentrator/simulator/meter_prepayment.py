"""Prepayment in a simulated meter: account, credit, charge, token gateway (classes 111 to 113 and 115, Blue Book 4.6).

Its tokens are of no real system: 20 digits whose last two are a check, and whose first six are an amount. A token is
taken once. While the account is active and in prepayment mode, energy is paid for from the credit; when that is used
up the meter disconnects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import ActionResult
from concentrator.dlms.cosem.objects import CosemObject, Method, refused
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis
from concentrator.simulator.meter_memory import MeterMemory, kept_object

ACCOUNT = Obis(0, 0, 19, 0, 0, 255)
TOKEN_CREDIT = Obis(0, 0, 19, 10, 0, 255)
EMERGENCY_CREDIT = Obis(0, 0, 19, 10, 1, 255)
ENERGY_CHARGE = Obis(0, 0, 19, 20, 0, 255)
TOKEN_GATEWAY = Obis(0, 0, 19, 40, 0, 255)
_ACTIVE_ENERGY = Obis(1, 0, 1, 8, 0, 255)
_TOKEN_DIGITS = 20
_NEW, _ACTIVE, _CLOSED = 1, 2, 3
_CREDIT_MODE, _PREPAYMENT_MODE = 1, 2
_EXECUTED, _FORMAT_FAILURE, _AUTHENTICATION_FAILURE, _VALIDATION_FAILURE = 3, 4, 5, 6
_SELECTABLE, _SELECTED, _IN_USE, _EXHAUSTED = 1, 2, 3, 4
_USED_TOKENS = 64
_NEVER = CosemDateTime().to_bytes()
# Hundredths of the currency for one kWh.
_PRICE = 25


def simulated_token(amount: int, number: int) -> str:
    """A token that these meters take: an amount in hundredths below a million, and a number that makes it another."""
    body = f"{amount:06d}{number:012d}"
    return body + f"{int(body) % 97:02d}"


def _unit_charge(price: int) -> Data:
    return axdr.structure(
        axdr.structure(axdr.integer(3), axdr.integer(-2)),
        axdr.structure(axdr.long_unsigned(3), axdr.octet_string(bytes(_ACTIVE_ENERGY)), axdr.integer(2)),
        axdr.array(axdr.structure(axdr.octet_string(b""), axdr.long(price))),
    )


class Prepayment:
    """The four objects. `energy` gives Wh at a moment, `run_out` is called when nothing is left."""

    def __init__(
        self,
        memory: MeterMemory,
        energy: Callable[[datetime], int],
        shown: Callable[[datetime], bytes],
        run_out: Callable[[], None],
    ) -> None:
        self._memory = memory
        self._energy = energy
        self._shown = shown
        self._run_out = run_out
        self._now = datetime.fromtimestamp(0, UTC)
        self._factory = self._factory_values()
        for obis, values in self._factory.items():
            for name, value in values.items():
                memory.begin(obis, name, value)
        # What is not an attribute: tokens that were used, and the energy that is paid for.
        memory.begin(TOKEN_GATEWAY, "used", axdr.array())
        memory.begin(ENERGY_CHARGE, "paid_energy", axdr.double_long_unsigned(0))

    @staticmethod
    def _factory_values() -> dict[Obis, dict[str, Data]]:
        configuration = Data(DataType.BIT_STRING, "00000")
        return {
            ACCOUNT: {
                "account_mode_and_status": axdr.structure(
                    axdr.enumeration(_CREDIT_MODE), axdr.enumeration(_NEW)
                ),
                "current_credit_in_use": axdr.unsigned(0),
                "current_credit_status": Data(DataType.BIT_STRING, "10000000"),
                "clearance_threshold": axdr.double_long(0),
                "credit_reference_list": axdr.array(
                    axdr.octet_string(bytes(TOKEN_CREDIT)), axdr.octet_string(bytes(EMERGENCY_CREDIT))
                ),
                "charge_reference_list": axdr.array(axdr.octet_string(bytes(ENERGY_CHARGE))),
                "credit_charge_configuration": axdr.array(),
                "token_gateway_configuration": axdr.array(),
                "account_activation_time": axdr.octet_string(_NEVER),
                "account_closure_time": axdr.octet_string(_NEVER),
                "currency": axdr.structure(
                    Data(DataType.UTF8_STRING, "EUR"), axdr.integer(-2), axdr.enumeration(1)
                ),
                "low_credit_threshold": axdr.double_long(200),
                "next_credit_available_threshold": axdr.double_long(0),
                "max_provision": axdr.long_unsigned(0),
                "max_provision_period": axdr.double_long(0),
            },
            **{
                obis: {
                    "current_credit_amount": axdr.double_long(amount),
                    "credit_type": axdr.enumeration(kind),
                    "priority": axdr.unsigned(priority),
                    "warning_threshold": axdr.double_long(200),
                    "limit": axdr.double_long(0),
                    "credit_configuration": configuration,
                    "credit_status": axdr.enumeration(status),
                    "preset_credit_amount": axdr.double_long(0),
                    "credit_available_threshold": axdr.double_long(0),
                    "period": axdr.octet_string(_NEVER),
                }
                for obis, amount, kind, priority, status in (
                    (TOKEN_CREDIT, 0, 0, 1, _IN_USE),
                    (EMERGENCY_CREDIT, 500, 2, 2, _SELECTABLE),
                )
            },
            ENERGY_CHARGE: {
                "total_amount_paid": axdr.double_long(0),
                "charge_type": axdr.enumeration(0),
                "priority": axdr.unsigned(1),
                "unit_charge_active": _unit_charge(_PRICE),
                "unit_charge_passive": _unit_charge(_PRICE),
                "unit_charge_activation_time": axdr.octet_string(_NEVER),
                "period": axdr.double_long_unsigned(0),
                "charge_configuration": Data(DataType.BIT_STRING, "00"),
                "last_collection_time": axdr.octet_string(_NEVER),
                "last_collection_amount": axdr.double_long(0),
                "total_amount_remaining": axdr.double_long(0),
                "proportion": axdr.long_unsigned(0),
            },
            TOKEN_GATEWAY: {
                "token": axdr.octet_string(b""),
                "token_time": axdr.octet_string(_NEVER),
                "token_description": axdr.array(),
                "token_delivery_method": axdr.enumeration(0),
                "token_status": axdr.structure(axdr.enumeration(0), Data(DataType.BIT_STRING, "")),
            },
        }

    def _integer(self, obis: Obis, name: str) -> int:
        return self._memory.get(obis, name).integer()

    def _account(self) -> tuple[int, int]:
        mode, status = self._memory.get(ACCOUNT, "account_mode_and_status").items(2)[:2]
        return mode.integer(), status.integer()

    def advance(self, now: datetime, local: datetime) -> None:
        """Collect what was consumed since."""
        self._now = now
        wanted = CosemDateTime.from_bytes(
            self._memory.get(ENERGY_CHARGE, "unit_charge_activation_time").octets()
        )
        if wanted.is_moment and (
            wanted.local() <= local if wanted.utc_offset is None else wanted.to_utc() <= now
        ):
            self._memory.put(ENERGY_CHARGE, "unit_charge_activation_time", axdr.octet_string(_NEVER))
            self._activate_charge()
        if self._account() != (_PREPAYMENT_MODE, _ACTIVE):
            return
        energy, paid = self._energy(now), self._integer(ENERGY_CHARGE, "paid_energy")
        table = self._memory.get(ENERGY_CHARGE, "unit_charge_active").items(3)[2].items()
        price = table[0].items(2)[1].integer() if table else 0
        amount = (energy - paid) * price // 1000
        if amount <= 0 or price <= 0:
            return
        self._memory.put(
            ENERGY_CHARGE, "paid_energy", axdr.double_long_unsigned(paid + amount * 1000 // price)
        )
        total = self._integer(ENERGY_CHARGE, "total_amount_paid") + amount
        self._memory.put(ENERGY_CHARGE, "total_amount_paid", axdr.double_long(total))
        self._memory.put(ENERGY_CHARGE, "last_collection_amount", axdr.double_long(amount))
        self._memory.put(ENERGY_CHARGE, "last_collection_time", axdr.octet_string(self._shown(now)))
        for obis in (TOKEN_CREDIT, EMERGENCY_CREDIT):
            if amount and self._integer(obis, "credit_status") in (_SELECTED, _IN_USE):
                left = self._integer(obis, "current_credit_amount")
                taken = min(amount, max(0, left))
                amount -= taken
                self._set_credit(obis, left - taken)
        if amount:
            # What nobody pays for any more is owed.
            self._set_credit(TOKEN_CREDIT, self._integer(TOKEN_CREDIT, "current_credit_amount") - amount)
        if self.available() <= 0:
            self._run_out()

    def available(self) -> int:
        """available_credit: what the credits in use hold."""
        return sum(
            max(0, self._integer(obis, "current_credit_amount"))
            for obis in (TOKEN_CREDIT, EMERGENCY_CREDIT)
            if self._integer(obis, "credit_status") in (_SELECTED, _IN_USE)
        )

    def _set_credit(self, obis: Obis, amount: int) -> None:
        self._memory.put(obis, "current_credit_amount", axdr.double_long(amount))

    # Methods

    def _activate(self, _parameter: Data | None) -> Data | None:
        if self._account()[1] != _NEW:
            raise refused(ActionResult.OTHER_REASON)
        energy = axdr.double_long_unsigned(self._energy(self._now))
        self._memory.put(ENERGY_CHARGE, "paid_energy", energy)
        return self._set_account(_PREPAYMENT_MODE, _ACTIVE)

    def _close(self, _parameter: Data | None) -> Data | None:
        if self._account()[1] != _ACTIVE:
            raise refused(ActionResult.OTHER_REASON)
        return self._set_account(self._account()[0], _CLOSED)

    def _reset(self, _parameter: Data | None) -> Data | None:
        if self._account()[1] != _CLOSED:
            raise refused(ActionResult.OTHER_REASON)
        return self._set_account(_CREDIT_MODE, _NEW)

    def _set_account(self, mode: int, status: int) -> None:
        value = axdr.structure(axdr.enumeration(mode), axdr.enumeration(status))
        self._memory.put(ACCOUNT, "account_mode_and_status", value)

    def _activate_charge(self) -> None:
        passive = self._memory.get(ENERGY_CHARGE, "unit_charge_passive")
        self._memory.put(ENERGY_CHARGE, "unit_charge_active", passive)

    def _enter(self, parameter: Data | None) -> Data | None:
        token = b"" if parameter is None else parameter.octets()
        status, amount = self._judge(token)
        self._memory.put(TOKEN_GATEWAY, "token", axdr.octet_string(token))
        self._memory.put(TOKEN_GATEWAY, "token_time", axdr.octet_string(self._shown(self._now)))
        told = axdr.structure(axdr.enumeration(status), Data(DataType.BIT_STRING, ""))
        if status == _EXECUTED:
            used = self._memory.get(TOKEN_GATEWAY, "used").items()
            fresh = axdr.octet_string(hashlib.sha256(token).digest())
            self._memory.put(TOKEN_GATEWAY, "used", axdr.array(*used[-_USED_TOKENS:], fresh))
            self._set_credit(TOKEN_CREDIT, self._integer(TOKEN_CREDIT, "current_credit_amount") + amount)
        self._memory.put(TOKEN_GATEWAY, "token_status", told)
        return told

    def _judge(self, token: bytes) -> tuple[int, int]:
        if len(token) != _TOKEN_DIGITS or not token.isdigit():
            return _FORMAT_FAILURE, 0
        if int(token[:-2]) % 97 != int(token[-2:]):
            return _AUTHENTICATION_FAILURE, 0
        digest = axdr.octet_string(hashlib.sha256(token).digest())
        if digest in self._memory.get(TOKEN_GATEWAY, "used").items():
            return _VALIDATION_FAILURE, 0
        return _EXECUTED, int(token[:6])

    def _credit_methods(self, obis: Obis) -> dict[str, Method]:
        def update(parameter: Data | None) -> Data | None:
            self._set_credit(obis, self._integer(obis, "current_credit_amount") + _amount(parameter))
            return None

        def set_to(parameter: Data | None) -> Data | None:
            self._set_credit(obis, _amount(parameter))
            return None

        def invoke(_parameter: Data | None) -> Data | None:
            if self._integer(obis, "credit_status") != _SELECTABLE:
                raise refused(ActionResult.OTHER_REASON)
            self._memory.put(obis, "credit_status", axdr.enumeration(_SELECTED))
            return None

        return {"update_amount": update, "set_amount_to_value": set_to, "invoke_credit": invoke}

    def cosem_objects(self) -> list[CosemObject]:
        """The objects of the four classes."""
        memory = self._memory

        def activate_charge(_parameter: Data | None) -> Data | None:
            self._activate_charge()
            return None

        account = kept_object(
            memory,
            111,
            ACCOUNT,
            {
                **self._factory[ACCOUNT],
                "available_credit": lambda: axdr.double_long(self.available()),
                "amount_to_clear": lambda: axdr.double_long(
                    min(0, self._integer(TOKEN_CREDIT, "current_credit_amount"))
                ),
                "aggregated_debt": lambda: axdr.double_long(0),
            },
            methods={
                "activate_account": self._activate,
                "close_account": self._close,
                "reset_account": self._reset,
            },
        )
        both_credits = [
            kept_object(memory, 112, obis, self._factory[obis], methods=self._credit_methods(obis))
            for obis in (TOKEN_CREDIT, EMERGENCY_CREDIT)
        ]
        charge = kept_object(
            memory,
            113,
            ENERGY_CHARGE,
            self._factory[ENERGY_CHARGE],
            {
                "unit_charge_passive": lambda value: [
                    row.items(2)[1].integer() for row in value.items(3)[2].items()
                ],
                "unit_charge_activation_time": lambda value: CosemDateTime.from_bytes(value.octets()),
            },
            {"activate_passive_unit_charge": activate_charge},
        )
        gateway = kept_object(
            memory, 115, TOKEN_GATEWAY, self._factory[TOKEN_GATEWAY], methods={"enter": self._enter}
        )
        return [account, *both_credits, charge, gateway]


def _amount(parameter: Data | None) -> int:
    if parameter is None or parameter.type is not DataType.DOUBLE_LONG:
        raise refused(ActionResult.TYPE_UNMATCHED)
    return parameter.integer()
