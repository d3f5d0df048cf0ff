"""Control orders against anything: arguments of any form, and meters that answer with any data."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import Command, Outcome
from concentrator.collection.control.operations import CONTROL_OPERATIONS, READ_OPERATIONS
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import DataAccessResult
from concentrator.dlms.errors import AccessError, DlmsError
from concentrator.orders import LOCAL, Order, OrderError

from dlms_strategies import data as any_data

SCRIPT = {"script_table": "0-0:10.0.106*255", "selector": 1}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ARGUMENTS = {
    "disconnect": {},
    "reconnect": {},
    "set_control_mode": {"mode": 3},
    "set_limiter": {"normal": 1, "actions": dict.fromkeys(("over", "under"), SCRIPT)},
    "set_emergency_profile": {"id": 1, "activation_time": "never", "duration_s": 1, "groups": [1]},
    "set_contracted_power": {"powers": [{"period": 2, "power": 5}]},
    "set_tariff": {
        "name": "A", "seasons": [{"name": "S", "start": "*-dst-begin-last sun 02:00", "week": "W"}],
        "weeks": [{"name": "W", **dict.fromkeys(WEEKDAYS, 1)}],
        "days": [{"id": 1, "actions": [{"at": "00:00", "selector": 1}]}],
    },
    "activate_tariff": {},
    "set_special_days": {"days": [{"index": 1, "date": "2026-12-25", "day": 1}]},
    "reset_billing": {},
    "enter_token": {"token": "1" * 20},
    "set_account": {"action": "close"},
    "set_credit": {"obis": "0-0:19.10.0*255", "add": 5},
    "set_charge": {"obis": "0-0:19.20.0*255", "activate": True},
    "set_capture_period": {"period_s": 900},
    "set_profile": {"columns": [{"class_id": 8, "obis": "0-0:1.0.0*255"}]},
    "change_keys": {},
    "show_message": {"text": "hello"},
    "run_script": {"selector": 1, "watch": [{"class_id": 3, "obis": "1-0:1.8.0*255", "expect": 4}]},
    "set_schedule": {"selector": 1, "times": [{"at": "00:00", "date": "*-*-*"}]},
    "set_relay_schedule": {"entries": [{"index": 1, "at": "01:00", "selector": 1}]},
    "write": {"obis": "1-0:1.8.0*255", "value": "1105"},
    "action": {"obis": "1-0:1.8.0*255", "class_id": 3},
}  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=12),
    st.sampled_from(["0-0:1.0.0*255", "*-12-25", "07:00", "never", "2026-12-01T00:00:00+01:00", "wrap", "0x41"]),
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


def prepared(operation, arguments) -> Command:
    order = Order("1", operation, "M1", {**arguments, "confirm": "M1"}, None, LOCAL)
    return CONTROL_OPERATIONS[operation].prepare(order)


def test_there_are_arguments_for_each():
    assert ARGUMENTS.keys() == CONTROL_OPERATIONS.keys()


@pytest.mark.parametrize("operation", CONTROL_OPERATIONS)
def test_what_is_kept_of_an_order_makes_it_again(operation):
    command = prepared(operation, ARGUMENTS[operation])
    kept = json.loads(json.dumps(command.recorded))
    again = CONTROL_OPERATIONS[operation].from_record(kept, "audit entry 1")
    assert again.recorded == command.recorded


@pytest.mark.parametrize("operation", CONTROL_OPERATIONS)
@settings(max_examples=60)
@given(data=st.data())
def test_any_arguments_are_taken_or_told_what_is_wrong(operation, data):
    arguments = dict(ARGUMENTS[operation])
    for name in data.draw(st.lists(st.sampled_from([*arguments, "obis", "extra", "profile"]), max_size=3)):
        arguments[name] = data.draw(JSON)
    wrong = ""
    try:
        command = prepared(operation, arguments)
    except OrderError as error:
        wrong = str(error)
    if wrong:
        assert "allowed:" in wrong
        assert "\n" not in wrong
        return
    kept = json.loads(json.dumps(command.recorded))
    assert CONTROL_OPERATIONS[operation].from_record(kept, "x").recorded == command.recorded


LEAVES = st.one_of(
    st.builds(
        Data,
        st.just(DataType.OCTET_STRING),
        st.sampled_from([4, 5, 6, 12]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    ),
    st.builds(
        Data, st.sampled_from([DataType.LONG_UNSIGNED, DataType.UNSIGNED, DataType.ENUM]), st.integers(0, 255)
    ),
    st.builds(Data, st.just(DataType.BIT_STRING), st.text("01", max_size=9)),
    st.builds(Data, st.just(DataType.BOOLEAN), st.booleans()),
)
# Of the shapes that meters' tables have, with any contents.
SHAPED = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(Data, st.just(DataType.STRUCTURE), st.lists(inner, min_size=2, max_size=10).map(tuple))
        | st.builds(Data, st.just(DataType.ARRAY), st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=16,
)
any_answer = st.one_of(any_data, SHAPED)


class AnyMeter:
    """Answers with whatever is drawn."""

    def __init__(self, draw) -> None:
        self._draw = draw

    def _answer(self, attribute):
        drawn = self._draw(st.one_of(any_answer, st.sampled_from(list(DataAccessResult)[1:])))
        return drawn if isinstance(drawn, Data) else AccessError(drawn, f"reading {attribute}")

    def get_many(self, attributes):
        yield from ()
        return [self._answer(attribute) for attribute in attributes]

    def get(self, attribute, _selection=None):
        yield from ()
        answer = self._answer(attribute)
        if isinstance(answer, AccessError):
            raise answer
        return answer

    def get_encoded(self, _attribute, _selection=None, *, sink=None):
        yield from ()
        octets = self._draw(any_answer).to_bytes()
        if sink is not None:
            sink(octets)
            return b""
        return octets

    def set(self, _attribute, _value):
        yield from ()

    def action(self, _method, _parameter=None):
        yield from ()
        return self._draw(st.one_of(st.none(), any_answer))


def run(conversation):
    try:
        next(conversation)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("nothing is to be sent to a meter that answers at once")


@pytest.mark.parametrize("operation", [name for name in CONTROL_OPERATIONS if name != "change_keys"])
@settings(max_examples=50)
@given(data=st.data())
def test_a_meter_that_answers_anything_gets_a_verdict(operation, data):
    command = prepared(operation, ARGUMENTS[operation])
    meter = AnyMeter(data.draw)
    try:
        before = run(command.observe(meter))
        json.dumps(before)
        if command.refusal(before):
            return
        command.already(before)
        run(command.send(meter))
        after = run(command.observe(meter))
    except DlmsError:
        return
    for verdict in (command.judge(before, after), command.judge_later(before, after)):
        assert isinstance(verdict.outcome, Outcome)
        assert isinstance(verdict.words, str)


@pytest.mark.parametrize("operation", READ_OPERATIONS)
@settings(max_examples=50)
@given(data=st.data())
def test_a_meter_that_answers_anything_is_read_or_refused(operation, data):
    try:
        state = run(READ_OPERATIONS[operation](AnyMeter(data.draw), Arguments({}, "order 1: args")))
    except DlmsError:
        return
    json.dumps(state)


@given(st.binary(max_size=13))
def test_any_octets_are_shown(octets):
    for show in (times.show_date, times.show_time, times.show_date_time):
        assert isinstance(show(octets), str)


FIELD = st.one_of(st.just("*"), st.integers(1, 12).map("{:02d}".format))


@given(
    st.one_of(st.just("*"), st.integers(1970, 2100).map(str)),
    FIELD,
    st.one_of(FIELD, st.sampled_from(["last", "second-last"])),
)
def test_dates_come_back_as_they_were_written(year, month, day):
    text = f"{year}-{month}-{day}"
    assert times.show_date(times.parse_date(text)) == text


@given(
    st.datetimes(min_value=times.datetime(1970, 1, 2), max_value=times.datetime(9998, 1, 1)).map(
        lambda d: d.replace(microsecond=0)
    )
)
def test_moments_come_back_as_they_were_written(moment):
    assert times.show_date_time(times.parse_date_time(moment.isoformat())) == moment.isoformat()
    zoned = moment.isoformat() + "+02:00"
    assert times.show_date_time(times.parse_date_time(zoned)) == zoned
