"""Disconnect and reconnect: every control mode, read back, and told as it is."""

import itertools

import pytest

from concentrator.collection.control.errors import (
    ControlRefusedError,
    NotAuthorisedError,
    NotDoneError,
    OutcomeOpenError,
)
from concentrator.orders import MQTT, PAGE, OrderError
from concentrator.simulator.meter_switch import CONNECTED, DISCONNECTED, READY_FOR_RECONNECTION

from control_rig import SERIAL, ControlRig, CrashError


@pytest.fixture
def rig(tmp_path, monkeypatch):
    rig = ControlRig(tmp_path, monkeypatch)
    yield rig
    rig.close()


@pytest.mark.parametrize("mode", range(1, 8))
async def test_disconnect_is_done_when_the_meter_says_so(rig, mode):
    rig.meter.controls.switch.mode = mode
    result = await rig.order("disconnect")
    assert result["outcome"] == "done"
    assert result["before"] == {"output_state": True, "control_state": "connected", "control_mode": mode}
    assert result["after"] == {"output_state": False, "control_state": "disconnected", "control_mode": mode}
    assert rig.meter.controls.switch.state == DISCONNECTED
    (entry,) = await rig.trail()
    assert (entry.operation, entry.meter, entry.origin, entry.state) == (
        "disconnect", SERIAL, "the concentrator itself", "done",
    )  # fmt: skip
    assert (entry.before, entry.after) == (result["before"], result["after"])
    assert entry.completed_at is not None


async def test_a_meter_that_is_always_connected_is_not_even_asked(rig):
    rig.meter.controls.switch.mode = 0
    with pytest.raises(ControlRefusedError, match="nothing was sent: control_mode 0"):
        await rig.order("disconnect")
    (entry,) = await rig.trail()
    assert entry.state == "not_done"


@pytest.mark.parametrize(
    ("mode", "outcome", "state"),
    [
        (1, "waiting_for_person", READY_FOR_RECONNECTION),
        (2, "done", CONNECTED),
        (3, "waiting_for_person", READY_FOR_RECONNECTION),
        (4, "done", CONNECTED),
        (5, "waiting_for_person", READY_FOR_RECONNECTION),
        (6, "waiting_for_person", READY_FOR_RECONNECTION),
        (7, "done", CONNECTED),
    ],
)
async def test_reconnect_goes_as_far_as_the_mode_lets_it(rig, mode, outcome, state):
    switch = rig.meter.controls.switch
    switch.mode = mode
    switch.remote_disconnect()
    result = await rig.order("reconnect")
    assert result["outcome"] == outcome
    assert switch.state == state
    if outcome == "waiting_for_person":
        assert "a person must press" in result["note"]
        assert result["after"]["output_state"] is False
        # Once more: nothing is to be done from here.
        sent = len(rig.link.sent)
        again = await rig.order("reconnect")
        assert again["outcome"] == "waiting_for_person"
        assert "nothing was sent" in again["note"]
        assert len(rig.link.sent) < 2 * sent
        switch.manual_reconnect()
        assert (await rig.order("read_switch", confirm=False))["control_state"] == "connected"


@pytest.mark.parametrize(
    ("mode", "state"), [(2, READY_FOR_RECONNECTION), (4, READY_FOR_RECONNECTION), (7, CONNECTED)]
)
async def test_what_the_limiter_switched_off_is_told_as_it_is(rig, mode, state):
    switch = rig.meter.controls.switch
    switch.mode = mode
    switch.local_disconnect()
    result = await rig.order("reconnect")
    assert switch.state == state
    assert result["outcome"] == ("done" if state == CONNECTED else "waiting_for_person")


@pytest.mark.parametrize("operation", ["disconnect", "reconnect"])
async def test_a_stuck_contactor_is_not_taken_for_a_switched_one(rig, operation):
    switch = rig.meter.controls.switch
    if operation == "reconnect":
        switch.remote_disconnect()
    switch.stuck = True
    with pytest.raises(NotDoneError, match="the meter acknowledged, but reading back says: output_state is"):
        await rig.order(operation)
    (entry,) = await rig.trail()
    assert entry.state == "not_done"
    assert entry.before == entry.after


async def test_nothing_is_sent_to_a_meter_that_is_so_already(rig):
    await rig.order("disconnect")
    sent = len(rig.link.sent)
    result = await rig.order("disconnect")
    assert result["outcome"] == "done"
    assert result["note"] == "was so before, nothing was sent"
    assert len(rig.link.sent) - sent < sent


async def test_a_meter_without_the_object_says_so(rig):
    with pytest.raises(Exception, match=r"0-0:96\.3\.99\*255.*refused: object-undefined"):
        await rig.order("disconnect", obis="0-0:96.3.99*255")
    assert await rig.trail() == []


async def test_a_lost_answer_is_looked_into_in_the_same_dialogue(rig):
    # The four requests before: two of the association, then the states, then the command.
    original = rig.meter.controls.memory.changed

    def lose_the_next(_what):
        rig.link.lose_answers = 1

    rig.meter.controls.memory.changed = lose_the_next
    result = await rig.order("disconnect")
    rig.meter.controls.memory.changed = original
    assert result["outcome"] == "done"
    assert "no acknowledgement came" in result["note"]


async def test_a_link_lost_after_the_command_leaves_the_outcome_open_and_is_asked_after(rig):
    def cut(_what):
        rig.link.cut = True

    rig.meter.controls.memory.changed = cut
    with pytest.raises(OutcomeOpenError, match="it is not known whether it was done"):
        await rig.order("disconnect")
    (entry,) = await rig.trail()
    assert (entry.state, entry.completed_at) == ("begun", None)
    rig.meter.controls.memory.changed = lambda _what: None
    rig.link.cut = False
    await rig.visit()
    (entry,) = await rig.trail()
    assert entry.state == "done"
    assert entry.detail == "found out later"
    assert entry.after["control_state"] == "disconnected"


@pytest.mark.parametrize("executed", [True, False])
async def test_a_power_cut_at_the_meter_in_the_middle(rig, executed):
    """The meter loses power right after it has switched, or before it hears of it; it comes back with what it keeps."""

    def fail(_what):
        rig.meter.power_off()

    if executed:
        rig.meter.controls.memory.changed = fail
    else:
        # The answer to reading the state is the third: the command goes into the dark.
        seen = itertools.count(1)
        receive = rig.meter.receive_apdu

        def receive_apdu(client, server, apdu, reply):
            receive(client, server, apdu, reply)
            if next(seen) == 3:
                fail("")

        rig.meter.receive_apdu = receive_apdu
    with pytest.raises(OutcomeOpenError):
        await rig.order("disconnect")
    rig.meter.controls.memory.changed = lambda _what: None
    rig.meter.power_on()
    assert rig.meter.connected is not executed
    await rig.visit()
    (entry,) = await rig.trail()
    assert entry.state == ("done" if executed else "not_done")


async def test_who_may_switch(tmp_path, monkeypatch):
    rig = ControlRig(tmp_path, monkeypatch, allow_mqtt="disconnect, reconnect")
    assert (await rig.order("disconnect", origin=MQTT))["outcome"] == "done"
    with pytest.raises(NotAuthorisedError, match="is not taken from the page"):
        await rig.order("disconnect", origin=PAGE)
    with pytest.raises(NotAuthorisedError, match="is not taken from MQTT"):
        await rig.order("set_control_mode", origin=MQTT, mode=0)
    assert [(one.state, one.operation, one.origin) for one in await rig.trail()] == [
        ("refused", "set_control_mode", "MQTT"),
        ("refused", "disconnect", "the page"),
        ("done", "disconnect", "MQTT"),
    ]
    rig.close()


@pytest.mark.parametrize("confirm", [False, "ODC0010000002", "yes"])
async def test_what_is_dangerous_is_confirmed_by_the_meter_s_identity(rig, confirm):
    with pytest.raises(OrderError, match=r"confirm: .*the meter's identity again"):
        await rig.order("disconnect", confirm=confirm)
    assert rig.meter.connected


async def test_an_order_that_the_broker_delivers_twice_is_carried_out_once(tmp_path, monkeypatch):
    rig = ControlRig(tmp_path, monkeypatch, allow_mqtt="all")
    first = await rig.order("disconnect", origin=MQTT, order_id="head-end-1")
    await rig.order("reconnect", origin=MQTT, order_id="head-end-2")
    again = await rig.order("disconnect", origin=MQTT, order_id="head-end-1")
    assert again["audit"] == first["audit"]
    assert "was carried out before" in again["note"]
    assert rig.meter.connected
    rig.close()


async def test_control_mode_is_set_and_read_back(rig):
    result = await rig.order("set_control_mode", mode=5)
    assert (result["outcome"], result["before"]["control_mode"], result["after"]["control_mode"]) == (
        "done",
        4,
        5,
    )
    with pytest.raises(OrderError, match="mode: got 9; allowed: a whole number from 0 to 7"):
        await rig.order("set_control_mode", mode=9)
    with pytest.raises(OrderError, match="colour: unknown; allowed: obis, mode"):
        await rig.order("set_control_mode", mode=4, colour="blue")


async def test_killed_at_every_step_the_trail_says_what_the_meter_says(tmp_path, monkeypatch):
    fatal, states = 0, []
    while True:
        fatal += 1
        directory = tmp_path / str(fatal)
        directory.mkdir()
        rig = ControlRig(directory, monkeypatch)
        rig.steps.fatal = fatal
        try:
            await rig.order("disconnect")
        except CrashError:
            rig.restart()
            await rig.load()
            await rig.visit()
        else:
            rig.close()
            break
        trail = await rig.trail()
        # Nothing was switched without an entry, and each entry tells what the meter is.
        assert trail or rig.meter.connected
        states += [entry.state for entry in trail]
        assert all(entry.state == ("not_done" if rig.meter.connected else "done") for entry in trail)
        rig.close()
    assert {"done", "not_done"} == set(states)


async def test_a_kept_order_that_begins_again_after_a_restart_is_not_sent_twice(rig):
    assert (await rig.order("show_message", order_id="cli-1", deferred=True, text="hello"))[
        "outcome"
    ] == "done"
    rig.restart()
    await rig.load()
    await rig.order("show_message", text="later")
    again = await rig.order("show_message", order_id="cli-1", deferred=True, text="hello")
    assert "carried out before" in again["note"]
    assert [entry.order_id for entry in await rig.trail()].count("cli-1") == 1


@pytest.mark.parametrize("arguments", [{"class_id": -1}, {"class_id": 65536}, {"attribute": 1000}])
async def test_numbers_that_no_attribute_has_are_refused_without_breaking_the_visit(rig, arguments):
    with pytest.raises(OrderError, match="allowed: a whole number from"):
        await rig.order("read", confirm=False, obis="1-0:1.8.0*255", **arguments)
