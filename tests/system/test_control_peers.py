"""Control orders against foreign DLMS servers: what they decode of ours, and what we make of their answers."""

from datetime import UTC, datetime

import pytest
from foreign_meters import ForeignRig, gurux_server, pydlms_meter

from concentrator.collection.control.errors import ControlError, NotDoneError, OutcomeOpenError

from control_rig import CALENDAR

pytestmark = pytest.mark.system


class Clock:
    def now(self):
        return datetime(2026, 11, 17, 10, 7, tzinfo=UTC)

    def monotonic(self):
        return 0.0


@pytest.fixture
def rig_of(tmp_path):
    rigs = []

    def make(exchange, reset=None):
        # Gurux encodes structures wrongly within a list (1.0.203).
        rigs.append(ForeignRig(tmp_path, Clock(), exchange, reset or (lambda: None), lists=reset is not None))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


# Gurux: its objects decode and encode; what a method does is told by the test, as it leaves that to the application.


def gurux_switch():
    from gurux_dlms.objects import GXDLMSDisconnectControl

    switch = GXDLMSDisconnectControl("0.0.96.3.10.255")
    switch.controlMode, switch.controlState, switch.outputState = 4, 1, True
    server, exchange = gurux_server([switch])

    def disconnect(_parameters):
        switch.controlState, switch.outputState = 0, False

    def reconnect(_parameters):
        switch.controlState, switch.outputState = (1, True) if switch.controlMode in (2, 4) else (2, False)

    server.acted = {(switch.logicalName, 1): disconnect, (switch.logicalName, 2): reconnect}
    return switch, exchange


@pytest.mark.parametrize(("mode", "outcome"), [(4, "done"), (3, "waiting_for_person")])
async def test_gurux_is_switched(rig_of, mode, outcome):
    switch, exchange = gurux_switch()
    switch.controlMode = mode
    rig = rig_of(exchange)
    assert (await rig.order("disconnect"))["after"]["control_state"] == "disconnected"
    assert (switch.controlState, switch.outputState) == (0, False)
    assert (await rig.order("reconnect"))["outcome"] == outcome


@pytest.mark.parametrize("executed", [True, False])
async def test_gurux_loses_its_power_in_the_middle(rig_of, executed):
    switch, exchange = gurux_switch()
    rig = rig_of(exchange)
    # The association and three attributes go through.
    rig.cut_after, rig.cut_before_answer = 4, executed
    with pytest.raises(OutcomeOpenError):
        await rig.order("disconnect")
    assert switch.outputState is not executed
    assert (await rig.trail())[0].state == "begun"
    await rig.power_back()
    assert (await rig.trail())[0].state == ("done" if executed else "not_done")


async def test_gurux_s_limiter_is_set(rig_of):
    from gurux_dlms import GXDateTime
    from gurux_dlms.enums import DataType
    from gurux_dlms.objects import GXDLMSLimiter, GXDLMSRegister

    register = GXDLMSRegister("1.0.1.7.0.255")
    limiter = GXDLMSLimiter("0.0.17.0.0.255")
    limiter.monitoredValue, limiter.monitoredAttributeIndex = register, 2
    for index in (3, 4, 5, 6, 7):
        limiter.setDataType(index, DataType.UINT32)
    limiter.thresholdActive, limiter.thresholdNormal, limiter.thresholdEmergency = 10_000, 10_000, 3_000
    limiter.minOverThresholdDuration = limiter.minUnderThresholdDuration = 60
    limiter.emergencyProfileActive = False
    limiter.actionOverThreshold.logicalName = limiter.actionUnderThreshold.logicalName = "0.0.10.0.106.255"
    limiter.actionOverThreshold.scriptSelector, limiter.actionUnderThreshold.scriptSelector = 1, 2
    limiter.emergencyProfile.id, limiter.emergencyProfile.duration = 0, 0
    limiter.emergencyProfile.activationTime = GXDateTime(datetime(2020, 1, 1, tzinfo=UTC))
    _server, exchange = gurux_server([register, limiter])
    rig = rig_of(exchange)
    result = await rig.order(
        "set_limiter",
        normal=5750,
        min_over_s=45,
        actions={
            "over": {"script_table": "0-0:10.0.106*255", "selector": 1},
            "under": {"script_table": "0-0:10.0.106*255", "selector": 5},
        },
    )
    assert result["outcome"] == "done"
    assert (limiter.thresholdNormal, limiter.minOverThresholdDuration) == (5750, 45)
    assert limiter.actionUnderThreshold.scriptSelector == 5
    state = await rig.order("read_limiter")
    assert state["monitored_value"] == {"class_id": 3, "obis": "1-0:1.7.0*255", "attribute": 2}
    assert state["threshold_normal"] == 5750
    result = await rig.order(
        "set_emergency_profile", id=9, activation_time="2026-12-01T10:00:00", duration_s=3600, groups=[9]
    )
    assert result["outcome"] == "done"
    assert (limiter.emergencyProfile.id, limiter.emergencyProfile.duration) == (9, 3600)
    assert limiter.emergencyProfileGroupIDs == [9]


async def test_gurux_s_calendar_is_programmed(rig_of):
    from gurux_dlms.objects import GXDLMSActivityCalendar, GXDLMSSpecialDaysTable

    calendar, special = GXDLMSActivityCalendar("0.0.13.0.0.255"), GXDLMSSpecialDaysTable("0.0.11.0.0.255")
    server, exchange = gurux_server([calendar, special])
    rig = rig_of(exchange)
    assert (await rig.order("set_tariff", **CALENDAR))["outcome"] == "done"
    assert calendar.calendarNamePassive == "WINTER26"
    assert [bytes(one.name) for one in calendar.weekProfileTablePassive] == [b"W1"]
    assert calendar.weekProfileTablePassive[0].saturday == 2
    actions = calendar.dayProfileTablePassive[0].daySchedules
    assert [(one.scriptLogicalName, one.scriptSelector) for one in actions] == [
        ("0.0.10.0.100.255", 3), ("0.0.10.0.100.255", 1),
    ]  # fmt: skip
    assert (actions[1].startTime.value.hour, actions[1].startTime.value.minute) == (6, 30)

    def activate(_parameters):
        for part in ("calendarName", "seasonProfile", "weekProfileTable", "dayProfileTable"):
            setattr(calendar, part + "Active", getattr(calendar, part + "Passive"))

    server.acted[calendar.logicalName, 1] = activate
    assert (await rig.order("activate_tariff", name="WINTER26"))["outcome"] == "done"
    result = await rig.order("set_special_days", days=[{"index": 3, "date": "2026-12-25", "day": 2}])
    assert result["outcome"] == "done"
    assert (special.entries[0].index, special.entries[0].date.value.day, special.entries[0].dayId) == (
        3,
        25,
        2,
    )


async def test_gurux_that_says_yes_and_does_not_activate_is_found_out(rig_of):
    from gurux_dlms.objects import GXDLMSActivityCalendar

    calendar = GXDLMSActivityCalendar("0.0.13.0.0.255")
    server, exchange = gurux_server([calendar])
    server.acted[calendar.logicalName, 1] = lambda _parameters: None
    rig = rig_of(exchange)
    await rig.order("set_tariff", **CALENDAR)
    with pytest.raises(NotDoneError, match="acknowledged, but reading back says: the active calendar is"):
        await rig.order("activate_tariff")


async def test_gurux_s_schedules_are_set(rig_of):
    from gurux_dlms.objects import GXDLMSActionSchedule, GXDLMSSchedule, GXDLMSScriptTable

    table = GXDLMSScriptTable("0.0.10.0.106.255")
    single, schedule = GXDLMSActionSchedule("0.0.15.0.1.255"), GXDLMSSchedule("0.0.12.0.0.255")
    single.target = table
    server, exchange = gurux_server([table, single, schedule])
    rig = rig_of(exchange)
    result = await rig.order("set_schedule", selector=2, times=[{"at": "22:15", "date": "2026-12-01"}])
    assert result["outcome"] == "done"
    assert (single.executedScriptSelector, single.executionTime[0].value.hour) == (2, 22)
    entries = [{"index": 1, "at": "23:00", "selector": 1, "weekdays": ["mon", "sun"], "begin": "2026-12-01"}]
    await rig.order("set_relay_schedule", entries=entries)
    assert schedule.entries[0].switchTime.value.hour == 23
    executed = []
    server.acted[table.logicalName, 1] = executed.append
    result = await rig.order("run_script", script_table="0-0:10.0.106*255", selector=2)
    assert (result["outcome"], executed) == ("acknowledged", [2])


async def test_gurux_s_prepayment_is_driven(rig_of):
    from gurux_dlms.enums import DataType
    from gurux_dlms.objects import GXDLMSAccount, GXDLMSCharge, GXDLMSCredit, GXDLMSTokenGateway

    gateway, credit = GXDLMSTokenGateway("0.0.19.40.0.255"), GXDLMSCredit("0.0.19.10.0.255")
    charge = GXDLMSCharge("0.0.19.20.0.255")
    gateway.token, gateway.statusCode, gateway.dataValue = b"", 0, ""
    credit.setDataType(2, DataType.INT32)
    credit.currentCreditAmount = 100
    server, exchange = gurux_server([GXDLMSAccount("0.0.19.0.0.255"), gateway, credit, charge])

    def enter(token):
        gateway.token, gateway.statusCode = bytes(token), 3

    def update(amount):
        credit.currentCreditAmount += amount

    server.acted = {(gateway.logicalName, 1): enter, (credit.logicalName, 1): update}
    rig = rig_of(exchange)
    result = await rig.order("enter_token", token="1234 5678 9012 3456 789")
    assert result["outcome"] == "done"
    assert gateway.token == b"1234567890123456789"
    assert (await rig.order("set_credit", obis="0-0:19.10.0*255", add=250))["outcome"] == "done"
    assert credit.currentCreditAmount == 350


async def test_gurux_s_profile_message_and_power_are_set(rig_of):
    from gurux_dlms.enums import DataType
    from gurux_dlms.objects import GXDLMSClock, GXDLMSData, GXDLMSProfileGeneric, GXDLMSRegister

    clock, energy = GXDLMSClock("0.0.1.0.0.255"), GXDLMSRegister("1.0.1.8.0.255")
    profile, message = GXDLMSProfileGeneric("1.0.99.1.0.255"), GXDLMSData("0.0.96.13.0.255")
    power = GXDLMSRegister("0.1.94.34.1.255")
    message.setDataType(2, DataType.OCTET_STRING)
    message.value = b""
    power.setDataType(2, DataType.UINT32)
    power.value = 5750
    profile.capturePeriod = 900
    _server, exchange = gurux_server([clock, energy, profile, message, power])
    rig = rig_of(exchange)
    assert (await rig.order("set_capture_period", period_s=1800))["outcome"] == "done"
    assert profile.capturePeriod == 1800
    columns = [{"class_id": 8, "obis": "0-0:1.0.0*255"}, {"class_id": 3, "obis": "1-0:1.8.0*255"}]
    assert (await rig.order("set_profile", columns=columns))["outcome"] == "done"
    assert [one.logicalName for one, _attribute in profile.captureObjects] == [
        "0.0.1.0.0.255",
        "1.0.1.8.0.255",
    ]
    assert (await rig.order("show_message", text="Hello"))["outcome"] == "done"
    assert bytes(message.value) == b"Hello"
    result = await rig.order("set_contracted_power", powers=[{"period": 1, "power": 3450}])
    assert (result["outcome"], power.value) == ("done", 3450)


def test_gurux_wraps_keys_as_we_do():
    """Its unwrapping stops with an error of its own (1.0.203), so its wrapping is compared."""
    from gurux_dlms.secure import GXDLMSSecureClient

    from concentrator.dlms.key_agreement import KeyId, wrapped_keys

    master, key = bytes(range(16)), bytes(range(100, 116))
    ((_key_id, wrapped),) = [
        item.items(2) for item in wrapped_keys(master, {KeyId.GLOBAL_UNICAST: key}).items()
    ]
    assert bytes(GXDLMSSecureClient.encrypt(master, key)) == wrapped.octets()


# pydlms: a simulator that keeps what is written, and a table of types for every class to decode it by.


async def test_pydlms_s_example_meter_contradicts_itself_and_is_told_so(rig_of):
    """Its method takes the voltage away and leaves control_state as it was."""
    _meter, exchange, reset = pydlms_meter()
    rig = rig_of(exchange, reset)
    with pytest.raises(NotDoneError, match="output_state is False, control_state is connected"):
        await rig.order("disconnect")


def of_pydlms(meter, class_id, obis, attributes):
    """An object of its simulator, of these encoded attributes; gives what decodes one by its own table of types."""
    from pydlms.cosem.data import decode_data
    from pydlms.cosem.model import spec_for
    from pydlms.obis import ObisCode

    values = {number: decode_data(bytes.fromhex(text))[0] for number, text in attributes.items()}
    meter.add_object(class_id, obis, values)
    spec = spec_for(class_id)

    def decoded(name):
        one = spec.attributes[name]
        return one.type.decode(meter.objects[class_id, ObisCode.parse(obis)][one.index], name)

    return decoded


async def test_pydlms_takes_apart_our_limiter(rig_of):
    meter, exchange, reset = pydlms_meter()
    number, nothing = "0600000001", "0203120000090CFFFFFFFFFFFFFFFFFFFF8000FF0600000000"
    decoded = of_pydlms(
        meter, 71, "0.0.17.0.0.255",
        {**dict.fromkeys(range(3, 8), number), 8: nothing, 9: "0100", 10: "0300"},
    )  # fmt: skip
    rig = rig_of(exchange, reset)
    await rig.order("set_limiter", normal=4600, emergency=1150)
    await rig.order(
        "set_emergency_profile", id=5, activation_time="2026-12-01T10:00:00", duration_s=900, groups=[5, 6]
    )
    assert decoded("threshold_normal").value == 4600
    profile = decoded("emergency_profile")
    assert (profile.emergency_profile_id, profile.emergency_duration) == (5, 900)
    assert list(decoded("emergency_profile_group_id_list")) == [5, 6]


async def test_pydlms_takes_apart_our_calendar_and_special_days(rig_of):
    meter, exchange, reset = pydlms_meter()
    calendar = {6: "090141", 7: "0100", 8: "0100", 9: "0100", 10: "090CFFFFFFFFFFFFFFFFFFFF8000FF"}
    calendar |= {number - 4: calendar[number] for number in (6, 7, 8, 9)}
    decoded = of_pydlms(meter, 20, "0.0.13.0.0.255", calendar)
    special = of_pydlms(meter, 11, "0.0.11.0.0.255", {2: "0100"})
    rig = rig_of(exchange, reset)
    result = await rig.order("set_tariff", **CALENDAR, activation_time="2027-01-01T00:00:00")
    assert result["outcome"] == "done"
    (season,) = decoded("season_profile_passive")
    assert (season.season_profile_name, season.week_name) == (b"S1", b"W1")
    (week,) = decoded("week_profile_table_passive")
    assert (week.monday, week.sunday) == (1, 2)
    days = decoded("day_profile_table_passive")
    assert [(day.day_id, len(day.day_schedule)) for day in days] == [(1, 2), (2, 1)]
    await rig.order("set_special_days", days=[{"index": 1, "date": "*-01-06", "day": 2}])
    (day,) = special("entries")
    assert (day.index, day.day_id) == (1, 2)
    # Its simulator takes the method by its table of types, and does nothing.
    with pytest.raises(NotDoneError, match="acknowledged, but reading back says: the active calendar is 'A'"):
        await rig.order("activate_tariff")
    assert meter.calls[-1][2] == "activate_passive_calendar"


async def test_pydlms_takes_apart_our_schedules(rig_of):
    meter, exchange, reset = pydlms_meter()
    single = of_pydlms(meter, 22, "0.0.15.0.1.255", {2: "0202090600000A006AFF120001", 3: "1601", 4: "0100"})
    schedule = of_pydlms(meter, 10, "0.0.12.0.0.255", {2: "0100"})
    meter.add_object(9, "0.0.10.0.103.255", {})
    rig = rig_of(exchange, reset)
    times = [{"at": "22:00", "date": "2026-12-01"}, {"at": "06:00", "date": "2026-12-02"}]
    assert (await rig.order("set_schedule", selector=2, times=times))["outcome"] == "done"
    assert len(single("execution_time")) == 2
    entries = [{"index": 7, "at": "22:30", "selector": 1, "weekdays": ["sat"], "special_days": [0, 2]}]
    assert (await rig.order("set_relay_schedule", entries=entries))["outcome"] == "done"
    (entry,) = schedule("entries")
    assert (entry.index, entry.enable, entry.script_selector) == (7, True, 1)
    assert (await rig.order("run_script", selector=2))["outcome"] == "acknowledged"
    assert meter.calls[-1][2:] == ("execute", 2)


async def test_pydlms_takes_apart_our_prepayment(rig_of):
    meter, exchange, reset = pydlms_meter()
    of_pydlms(meter, 111, "0.0.19.0.0.255", {2: "020216011601", 5: "0500000000", 9: "0100", 10: "0100"})
    of_pydlms(meter, 112, "0.0.19.10.0.255", {2: "0500000064", 8: "1603"})
    charge = of_pydlms(
        meter, 113, "0.0.19.20.0.255",
        dict.fromkeys((5, 6), "020302020F030FFE020312000309060100010800FF0F020101020209001000 19".replace(" ", "")),
    )  # fmt: skip
    of_pydlms(
        meter,
        115,
        "0.0.19.40.0.255",
        {2: "0900", 3: "090CFFFFFFFFFFFFFFFFFFFF8000FF", 6: "0202160004 00".replace(" ", "")},
    )
    rig = rig_of(exchange, reset)
    wanted = {
        "commodity_scale": 3,
        "price_scale": -2,
        "commodity": {"class_id": 3, "obis": "1-0:1.8.0*255", "attribute": 2},
        "table": [{"index": "", "charge": 31}],
    }
    assert (await rig.order("set_charge", obis="0-0:19.20.0*255", unit_charge=wanted))["outcome"] == "done"
    assert charge("unit_charge_passive") is not None
    for operation, arguments, name, value in (
        ("enter_token", {"token": "12345678901234567890"}, "enter", b"12345678901234567890"),
        ("set_credit", {"obis": "0-0:19.10.0*255", "add": 50}, "update_amount", 50),
        ("set_credit", {"obis": "0-0:19.10.0*255", "amount": 50}, "set_amount_to_value", 50),
        ("set_account", {"action": "activate"}, "activate_account", 0),
    ):
        # Taken by its table of types, and nothing done: which is what is told.
        with pytest.raises(ControlError, match=r"not done|unknown"):
            await rig.order(operation, **arguments)
        assert meter.calls[-1][2] == name
        assert meter.calls[-1][3] == value


@pytest.mark.parametrize("executed", [True, False])
@pytest.mark.parametrize(
    ("operation", "arguments", "obis", "class_id", "attribute"),
    [
        ("show_message", {"text": "Hello"}, "0.0.96.13.0.255", 1, 2),
        ("set_contracted_power", {"powers": [{"period": 1, "power": 3450}]}, "0.1.94.34.1.255", 3, 2),
        ("set_capture_period", {"period_s": 1800}, "1.0.99.1.0.255", 7, 4),
        ("set_control_mode", {"mode": 2}, "0.0.96.3.10.255", 70, 4),
    ],
)
async def test_pydlms_loses_its_power_in_the_middle(
    rig_of, operation, arguments, obis, class_id, attribute, executed
):
    from pydlms.cosem.data import decode_data

    meter, exchange, reset = pydlms_meter()
    present = {
        ("show_message"): {2: "0900"},
        ("set_contracted_power"): {2: "0600001676"},
        ("set_capture_period"): {4: "0600000384", 7: "0600000000"},
        ("set_control_mode"): {2: "0301", 3: "1601", 4: "1604"},
    }[operation]
    meter.add_object(class_id, obis, {n: decode_data(bytes.fromhex(text))[0] for n, text in present.items()})
    rig = rig_of(exchange, reset)
    # The association and the attributes go through, in a list where they are several.
    rig.cut_after, rig.cut_before_answer = 2, executed
    with pytest.raises(OutcomeOpenError):
        await rig.order(operation, **arguments)
    await rig.power_back()
    (entry,) = await rig.trail()
    assert entry.state == ("done" if executed else "not_done")
