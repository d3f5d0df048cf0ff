"""Limiter, tariff, billing, prepayment, profile set-up, display, load control: done, refused, cut in the middle."""

import pytest

from concentrator.collection.control.errors import (
    ControlError,
    ControlRefusedError,
    NotDoneError,
    OutcomeOpenError,
    OutcomeUnknownError,
)
from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.cosem.objects import refused
from concentrator.orders import OrderError
from concentrator.simulator import meter_controls as controls
from concentrator.simulator.meter import LOAD_PROFILE
from concentrator.simulator.meter_prepayment import (
    EMERGENCY_CREDIT,
    ENERGY_CHARGE,
    TOKEN_CREDIT,
    simulated_token,
)

from control_rig import CALENDAR, ControlRig

COLUMNS = [
    {"class_id": 8, "obis": "0-0:1.0.0*255"},
    {"class_id": 1, "obis": "0-0:96.10.1*255"},
    {"class_id": 3, "obis": "1-0:1.8.0*255"},
    {"class_id": 3, "obis": "1-0:32.7.0*255"},
]
CHARGE = {
    "commodity_scale": 3,
    "price_scale": -2,
    "commodity": {"class_id": 3, "obis": "1-0:1.8.0*255", "attribute": 2},
    "table": [{"index": "", "charge": 31}],
}
TOKEN = simulated_token(1500, 1)


# Every operation that changes a meter, as it is ordered, and whether a state read hours later tells what came of it.
CASES = {
    "set_limiter": ({"normal": 4000, "emergency": 1500, "min_over_s": 30}, True),
    "set_emergency_profile": (
        {"id": 1, "activation_time": "2026-11-17T10:00:00+00:00", "duration_s": 7200},
        True,
    ),
    "set_contracted_power": ({"powers": [{"period": 1, "power": 3450}, {"period": 2, "power": 4600}]}, True),
    "set_tariff": (CALENDAR, True),
    "set_special_days": ({"days": [{"index": 1, "date": "*-12-25", "day": 2}]}, True),
    "reset_billing": ({}, True),
    "enter_token": ({"token": TOKEN}, True),
    "set_credit": ({"obis": str(TOKEN_CREDIT), "amount": 900}, True),
    "set_charge": ({"obis": str(ENERGY_CHARGE), "unit_charge": CHARGE}, True),
    "set_account": ({"action": "activate"}, True),
    "set_capture_period": ({"period_s": 3600}, True),
    "set_profile": ({"columns": COLUMNS}, True),
    "show_message": ({"text": "Power cut on Tuesday 8 to 10 h"}, True),
    "run_script": (
        {"selector": 1, "watch": [{"class_id": 70, "obis": "0-1:96.3.10*255", "attribute": 3, "expect": 0}]},
        True,
    ),
    "set_schedule": ({"selector": 1, "times": [{"at": "22:00", "date": "2026-12-01"}]}, True),
    "set_relay_schedule": (
        {"entries": [{"index": 1, "at": "23:00", "selector": 1, "weekdays": ["sat", "sun"]}]},
        True,
    ),
    "set_control_mode": ({"mode": 2}, True),
    "disconnect": ({}, True),
    "write": ({"obis": "0-0:96.13.0*255", "value": "090474657374"}, False),
    "action": ({"class_id": 70, "obis": "0-0:96.3.10*255", "parameter": "0F00"}, False),
}


@pytest.fixture
def rig(tmp_path, monkeypatch):
    rig = ControlRig(tmp_path, monkeypatch)
    yield rig
    rig.close()


def order_of(rig, operation):
    arguments, _tells = CASES[operation]
    return rig.order(operation, **arguments)


@pytest.mark.parametrize("operation", CASES)
async def test_each_is_done_and_read_back_and_in_the_trail(rig, operation):
    result = await order_of(rig, operation)
    (entry,) = await rig.trail()
    assert result["outcome"] == entry.state == ("acknowledged" if operation == "action" else "done")
    assert entry.before == result["before"]
    assert entry.after == result["after"]
    if operation != "action":
        assert result["before"] != result["after"]


@pytest.mark.parametrize("operation", CASES)
async def test_each_with_a_power_cut_after_the_meter_has_kept_it(rig, operation):
    """Its answer is lost with the power; of what is written in parts, only the first is there."""
    rig.meter.controls.memory.changed = lambda _what: rig.meter.power_off()
    with pytest.raises((OutcomeOpenError, OutcomeUnknownError), match=r"not known|unknown"):
        await order_of(rig, operation)
    # Of a method of which nothing can be read back, nothing will be known later either.
    assert (await rig.trail())[0].state == ("unknown" if operation == "action" else "begun")
    rig.meter.controls.memory.changed = lambda _what: None
    rig.meter.power_on()
    rig.clock.advance(minutes=20)
    await rig.visit()
    (entry,) = await rig.trail()
    in_parts = operation in ("set_limiter", "set_contracted_power", "set_tariff")
    assert entry.state == ("unknown" if not CASES[operation][1] else "not_done" if in_parts else "done")
    assert entry.completed_at is not None


@pytest.mark.parametrize("operation", CASES)
async def test_each_with_a_power_cut_before_the_meter_hears_of_it(rig, operation):
    """The meter is gone when the command comes: after the audit entry was begun, before anything was done."""
    arguments, tells = CASES[operation]

    async def begun(entry, add=rig.store.add_audit_entry):
        number = await add(entry)
        rig.meter.power_off()
        return number

    rig.store.add_audit_entry = begun
    with pytest.raises((OutcomeOpenError, OutcomeUnknownError)):
        await rig.order(operation, **arguments)
    rig.meter.power_on()
    await rig.visit()
    (entry,) = await rig.trail()
    assert entry.state == ("not_done" if tells else "unknown")


@pytest.mark.parametrize("operation", CASES)
async def test_each_is_asked_after_when_the_concentrator_was_killed(rig, operation):
    from control_rig import CrashError

    arguments, tells = CASES[operation]
    rig.meter.controls.memory.changed = lambda _what: setattr(rig.steps, "dead", True)
    with pytest.raises(CrashError):
        await rig.order(operation, **arguments)
    rig.meter.controls.memory.changed = lambda _what: None
    rig.restart()
    await rig.load()
    await rig.visit()
    (entry,) = await rig.trail()
    assert entry.state != "begun"
    assert entry.completed_at is not None
    if not tells:
        assert entry.state == "unknown"
    events = await rig.store.read(
        lambda c: c.execute("SELECT detail FROM event WHERE code = 'order_outcome'").fetchall()
    )
    assert len(events) == 1
    assert operation in events[0][0]


async def test_an_order_whose_time_is_over_is_not_carried_out(rig):
    pending = rig.order("disconnect", not_after="2026-11-17T10:06:00+00:00")
    with pytest.raises(ControlRefusedError, match="nothing was sent: its time was over at 2026-11-17T10:06"):
        await pending
    assert rig.meter.connected
    assert await rig.trail() == []


async def test_a_meter_that_refuses_is_not_said_to_have_done_it(rig):
    def refuse(_value):
        raise refused(DataAccessResult.READ_WRITE_DENIED)

    objects = rig.meter.server.devices[1].objects
    objects[71, controls.LIMITER].setters[4] = refuse
    with pytest.raises(NotDoneError, match=r"not done: writing attribute 4 .* refused: read-write-denied"):
        await rig.order("set_limiter", normal=4000)
    (entry,) = await rig.trail()
    assert entry.state == "not_done"


async def test_a_meter_that_says_yes_and_does_nothing_is_found_out(rig):
    objects = rig.meter.server.devices[1].objects
    objects[3, controls.CONTRACTED_POWERS[0]].setters[2] = lambda _value: None
    with pytest.raises(NotDoneError, match="acknowledged, but reading back says: period_1 is 5750"):
        await rig.order("set_contracted_power", powers=[{"period": 1, "power": 3450}])


# Limiter


async def test_the_limiter_works_as_it_was_set(rig):
    result = await rig.order("set_limiter", normal=10, min_over_s=0, min_under_s=0)
    assert result["after"]["threshold_normal"] == result["after"]["threshold_active"] == 10
    assert rig.meter.connected
    rig.clock.advance(minutes=1)
    state = await rig.order("read_limiter", confirm=False)
    assert state["monitored_value"] == {"class_id": 3, "obis": "1-0:1.7.0*255", "attribute": 2}
    assert state["scaler_unit"] == [0, 27]
    assert not rig.meter.connected


async def test_the_emergency_profile_has_its_time(rig):
    await rig.order(
        "set_emergency_profile",
        id=7,
        activation_time="2026-11-17T11:20:00+01:00",
        duration_s=1800,
        groups=[7, 8],
    )
    active = []
    for _ in range(4):
        state = await rig.order("read_limiter", confirm=False)
        active.append((state["emergency_profile_active"], state["threshold_active"]))
        rig.clock.advance(minutes=15)
    assert active == [(False, 50_000), (True, 2_000), (True, 2_000), (False, 50_000)]
    assert state["emergency_profile_group_id_list"] == [7, 8]


# Tariff


async def test_a_tariff_goes_from_passive_to_active(rig):
    assert rig.meter.controls.tariff() == 1
    result = await rig.order("set_tariff", confirm=False, **CALENDAR)
    assert result["after"]["active_name"] == "FACTORY"
    result = await rig.order("activate_tariff", confirm=False, name="WINTER26")
    assert result["after"]["active"] == result["before"]["passive"]
    assert result["after"]["active"]["name"] == "WINTER26"
    rig.clock.advance(hours=-6)
    # 05:07 local time, of a Tuesday.
    assert rig.meter.controls.tariff() == 3
    await rig.order("set_special_days", confirm=False, days=[{"index": 4, "date": "2026-11-17", "day": 2}])
    rig.clock.advance(hours=6)
    assert rig.meter.controls.tariff() == 3
    state = await rig.order("read_tariff", confirm=False)
    assert state["special_days"] == [{"index": 4, "date": "2026-11-17", "day": 2}]
    assert state["active"]["days"][0]["actions"][1] == {
        "at": "06:30", "script_table": "0-0:10.0.100*255", "selector": 1,
    }  # fmt: skip


async def test_a_tariff_is_put_into_use_at_its_time(rig):
    await rig.order("set_tariff", confirm=False, **CALENDAR)
    result = await rig.order("activate_tariff", confirm=False, name="WINTER26", at="2026-11-17T12:00:00")
    assert result["after"]["activation_time"] == "2026-11-17T12:00:00"
    assert (await rig.order("read_tariff", confirm=False))["active"]["name"] == "FACTORY"
    rig.clock.advance(hours=1)
    assert (await rig.order("read_tariff", confirm=False))["active"]["name"] == "WINTER26"


async def test_another_tariff_than_the_one_meant_is_not_put_into_use(rig):
    with pytest.raises(ControlError, match="the passive calendar is 'FACTORY', not 'SUMMER26'"):
        await rig.order("activate_tariff", confirm=False, name="SUMMER26")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"seasons": [{"name": "S1", "start": "*-01-01 00:00", "week": "W2"}]},
            r"week: got 'W2'; allowed: .*W1",
        ),
        (
            {"days": [{"id": 1, "actions": [{"at": "00:00", "selector": 1}]}]},
            r"saturday: got 2; allowed: .*: 1",
        ),
        (
            {"days": [{"id": 1, "actions": [{"at": "24:00", "selector": 1}]}]},
            r"at: got '24:00'; allowed: a time",
        ),
        ({"name": "x" * 40}, "name: got .*; allowed: text of 1 to 32 octets"),
        ({"seasons": []}, r"seasons: got \[\]; allowed: a list of 1 to 52"),
        (
            {"seasons": [{"name": "S1", "start": "*-02-30 00:00", "week": "W1"}]},
            "start: got .*; allowed: a moment",
        ),
    ],
)
async def test_a_calendar_that_makes_no_sense_is_not_sent(rig, change, words):
    with pytest.raises(OrderError, match=words):
        await rig.order("set_tariff", confirm=False, **{**CALENDAR, **change})
    assert rig.link.sent == []


# Billing


async def test_billing_is_reset_and_read(rig):
    before = await rig.order("read_billing", confirm=False, last=3)
    result = await rig.order("reset_billing")
    assert result["after"]["billing_periods"] == result["before"]["billing_periods"] + 1
    assert result["after"]["last_reset"] == "2026-11-17T11:07:00+01:00"
    state = await rig.order("read_billing", confirm=False, last=2)
    truth = rig.meter.controls.billing.truth()[-2:]
    assert [tuple(row["values"]) for row in state["rows"]] == [values for _at, values in truth]
    assert [row["captured_at"] for row in state["rows"]] == [at.isoformat() for at, _values in truth]
    assert state["rows"][0]["captured_at"] == before["rows"][-1]["captured_at"] == "2026-10-31T23:00:00+00:00"
    assert state["channels"][0]["obis"] == "1-0:1.8.0*255"
    assert state["channels"][0]["unit"] == 30


# Prepayment


async def test_a_token_is_relayed_once_and_never_told(rig):
    result = await rig.order("enter_token", confirm=False, token=f"{TOKEN[:4]} {TOKEN[4:12]}-{TOKEN[12:]}")
    assert result["after"]["token_status"] == "executed"
    state = await rig.order("read_prepayment", confirm=False)
    assert state["credits"][0]["current_credit_amount"] == 1500
    assert state["available_credit"] == 1500
    rig.clock.advance(minutes=1)
    with pytest.raises(NotDoneError, match="token refused: it is not valid") as caught:
        await rig.order("enter_token", confirm=False, token=TOKEN)
    texts = [str(caught.value), repr(result), repr(state), repr(await rig.trail())]
    texts += [path.read_bytes().decode("latin-1") for path in rig.directory.glob("store.db*")]
    assert not any(TOKEN in text for text in texts)
    assert (await rig.trail())[0].arguments["token_ends"] == TOKEN[-4:]


@pytest.mark.parametrize(
    ("token", "words"),
    [(TOKEN[:-1] + str((int(TOKEN[-1]) + 1) % 10), "not authentic"), (TOKEN[:-1], "its format is wrong")],
)
async def test_a_token_that_the_meter_refuses_is_told_as_refused(rig, token, words):
    with pytest.raises(NotDoneError, match=words):
        await rig.order("enter_token", confirm=False, token=token)


@pytest.mark.parametrize("token", ["", "123", "1" * 21, "12345678901234567x9", 12345678901234567890, None])
async def test_what_is_no_token_is_not_relayed_and_not_repeated(rig, token):
    with pytest.raises(
        OrderError, match=r"token: (not as it has to be|missing); allowed: 19 or 20 digits"
    ) as caught:
        await rig.order("enter_token", confirm=False, token=token)
    assert rig.link.sent == []
    assert not token or str(token) not in str(caught.value)


async def test_a_token_that_waits_is_not_taken_for_entered(rig):
    gateway = rig.meter.server.devices[1].objects[115, controls.Obis(0, 0, 19, 40, 0, 255)]

    def queue(parameter):
        memory, obis = rig.meter.controls.memory, gateway.obis
        memory.put(obis, "token", parameter)
        memory.put(obis, "token_time", axdr.octet_string(rig.meter.shown(rig.meter.now()).to_bytes()))
        memory.put(obis, "token_status", axdr.structure(axdr.enumeration(8), Data(DataType.BIT_STRING, "")))

    gateway.methods[1] = queue
    with pytest.raises(OutcomeUnknownError, match="received, not processed yet"):
        await rig.order("enter_token", confirm=False, token=TOKEN)


async def test_prepaid_energy_is_used_up_and_the_meter_switches_off(rig):
    await rig.order("enter_token", confirm=False, token=simulated_token(40, 2))
    await rig.order("set_account", action="activate")
    assert rig.meter.connected
    rig.clock.advance(hours=30)
    state = await rig.order("read_prepayment", confirm=False)
    assert state["available_credit"] == 0
    assert state["account"] == {"mode": "prepayment", "status": "active"}
    assert not rig.meter.connected
    result = await rig.order("set_credit", obis=str(EMERGENCY_CREDIT), invoke=True)
    assert result["after"]["credit_status"] == "selected"
    result = await rig.order("set_credit", obis=str(TOKEN_CREDIT), add=5000)
    difference = result["after"]["current_credit_amount"] - result["before"]["current_credit_amount"]
    assert difference == 5000
    result = await rig.order("set_charge", obis=str(ENERGY_CHARGE), unit_charge=CHARGE)
    result = await rig.order("set_charge", obis=str(ENERGY_CHARGE), activate=True)
    assert result["after"]["unit_charge_active"] == CHARGE
    for action, status in (("close", "closed"), ("reset", "new")):
        result = await rig.order("set_account", action=action)
        assert result["after"]["account"]["status"] == status


# Profile set-up


async def test_a_profile_is_set_up_and_read_as_it_is_then(rig):
    await rig.order("set_profile", columns=COLUMNS, period_s=300)
    rig.clock.advance(minutes=30)
    await rig.visit()
    rows = rig.meter.truth(LOAD_PROFILE, rig.clock.now().replace(hour=0), rig.clock.now())
    assert len(rows) == 6
    assert all(len(row.values) == 2 for row in rows)
    shape = await rig.order("read", confirm=False, obis=str(LOAD_PROFILE), class_id=7, attribute=4)
    assert shape["value"] == 300


async def test_a_profile_without_its_clock_is_not_set(rig):
    with pytest.raises(OrderError, match=r"columns: got .*; allowed: a list that begins with the clock"):
        await rig.order("set_profile", columns=COLUMNS[1:])


# Display and load control


async def test_a_message_is_kept_over_a_power_failure(rig):
    await rig.order("show_message", confirm=False, text="Zählerwechsel am 3. Mai")
    rig.meter.power_off()
    rig.meter.power_on()
    result = await rig.order("show_message", confirm=False, text="")
    assert result["before"] == {"message": "Zählerwechsel am 3. Mai"}
    assert result["after"] == {"message": ""}


async def test_a_script_without_anything_to_watch_is_acknowledged_and_no_more(rig):
    result = await rig.order("run_script", selector=1)
    assert result["outcome"] == "acknowledged"
    assert rig.meter.controls.relay.state == 0
    with pytest.raises(NotDoneError, match="refused: object-undefined"):
        await rig.order("run_script", selector=99)


async def test_a_schedule_switches_when_its_time_comes(rig):
    result = await rig.order("set_schedule", selector=1, times=[{"at": "12:00", "date": "*-*-*"}])
    assert result["after"]["type"] == 1
    await rig.order("set_relay_schedule", entries=[{"index": 3, "at": "11:30", "selector": 1}])
    rig.clock.advance(minutes=30)
    await rig.visit()
    assert not rig.meter.controls.relay.connected
    assert rig.meter.connected
    rig.clock.advance(minutes=30)
    await rig.visit()
    assert not rig.meter.connected


@pytest.mark.parametrize(
    ("moments", "kind"),
    [
        ([], 1),
        ([("22:00", "2026-12-01")], 1),
        ([("22:00", "2026-12-01"), ("22:00", "2026-12-02")], 2),
        ([("22:00", "*-12-01"), ("22:00", "*-12-02")], 3),
        ([("22:00", "2026-12-01"), ("23:00", "2026-12-01")], 4),
        ([("22:00", "2026-12-01"), ("23:00", "*-*-last")], 5),
    ],
)
async def test_the_type_of_a_schedule_follows_from_its_times(rig, moments, kind):
    times = [{"at": at, "date": day} for at, day in moments]
    if not times:
        await rig.order("set_schedule", selector=1, times=[{"at": "22:00", "date": "2026-12-01"}])
    result = await rig.order("set_schedule", selector=1, times=times)
    assert (result["outcome"], result["after"]["type"]) == ("done", kind)
    assert result["after"]["execution_time"] == times


def test_every_operation_is_told_in_the_documentation():
    from pathlib import Path

    from concentrator.collection.meter_orders import METER_OPERATIONS

    page = (Path(__file__).parents[2] / "docs" / "orders.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, operation in METER_OPERATIONS.items():
        assert f"`{name}`" in page
        if getattr(operation, "changes_meter", False):
            assert operation.dangerous == ("**!**" in rows[name].split("|")[1])


def test_every_control_operation_has_its_case():
    from concentrator.collection.control.operations import CONTROL_OPERATIONS

    others = {"reconnect", "activate_tariff", "change_keys"}
    assert CONTROL_OPERATIONS.keys() == CASES.keys() | others
