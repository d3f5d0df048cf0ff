"""Tasks: what is refused, which meters they are for, and the book of their runs."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from concentrator.collection.meter_tasks import MeterSelection, MeterTask, TaskError, default_task, tasks_of
from concentrator.collection.registry import CollectedMeter
from concentrator.collection.task_book import TaskBook
from concentrator.config import CollectionSection, TaskSection
from concentrator.model import Medium, MeterRecord, Registration

T0 = datetime(2026, 11, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "a b"}, "name: got 'a b'; allowed: 1 to 64 letters"),
        ({"name": "a", "what": "all"}, "what: got 'all'; allowed: one of profile, billing"),
        ({"name": "a", "priority": 4}, "priority: got 4; allowed: 1, 2 or 3"),
        ({"name": "a", "priority": True}, "priority: got True; allowed: a whole number"),
        ({"name": "a", "period": "1w"}, "period: got '1w'; allowed: a number with"),
        ({"name": "a", "period": "5s"}, "period: got '5s'; allowed: a minute or more"),
        ({"name": "a", "window": "1month"}, "window: got '1month'; allowed: a number with s, min, h or d"),
        ({"name": "a", "objects": "1.8.0, nonsense"}, "objects: "),
        ({"name": "a", "meters": "group:"}, "meters: got 'group:'; allowed: all, group:NAME"),
        ({"name": "a", "meters": "medium:beer"}, "meters: got 'medium:beer'; allowed: .*heat_cost"),
        ({"name": "a", "first_run": "soon"}, "first_run: got 'soon'; allowed: a time such as"),
        ({"name": "a", "store": False, "send": False}, "store, send: both are false"),
        ({"name": "a", "colour": "red"}, "colour: unknown key; allowed: name, what"),
    ],
)
def test_what_makes_no_sense_is_told_in_one_line(given, words):
    with pytest.raises(TaskError, match=words) as caught:
        MeterTask.from_definition(given)
    assert "\n" not in str(caught.value)


def test_a_definition_gives_the_task_again():
    task = MeterTask.from_definition(
        {
            "name": "daily",
            "objects": "1-0:99.2.0*255, 1-0:99.1.0*255",
            "meters": "medium:gas",
            "first_run": "2026-01-01T01:10",
            "window": "6h",
            "priority": 1,
            "complete": False,
        },
        ZoneInfo("Europe/Madrid"),
        "order",
    )
    assert MeterTask.from_definition(task.definition(), ZoneInfo("Europe/Madrid"), "order") == task
    assert task.schedule.first.utcoffset() == timedelta(hours=1)


def test_selection():
    assert MeterSelection().holds("A", "gas")
    assert MeterSelection("group:north").holds("A", "gas", ("south", "north"))
    assert not MeterSelection("group:north").holds("A", "gas")
    assert MeterSelection("medium:gas").holds("A", "gas")
    assert MeterSelection("A, B").holds("B", "gas")
    assert not MeterSelection("A, B").holds("C", "gas")


def test_without_tasks_the_load_profile_is_read():
    (task,) = tasks_of((), CollectionSection(interval_s=1800))
    assert task == default_task(CollectionSection(interval_s=1800))
    assert task.schedule.latest_due(T0 + timedelta(minutes=59)) == T0 + timedelta(minutes=30)


def test_two_tasks_of_one_name():
    with pytest.raises(TaskError, match=r"task\[2\].name: got 'a' again"):
        tasks_of((TaskSection("a"), TaskSection("a")), CollectionSection())
    with pytest.raises(TaskError, match=r"task\[1\].period: got 'x'"):
        tasks_of((TaskSection("a", period="x"),), CollectionSection())


def book(**options):
    given = {"name": "t", "period": "1h", "first_run": "2026-11-17T00:00+00:00", **options}
    return TaskBook([MeterTask.from_definition(given)], delay_s=60)


def meter(identity="M1"):
    return CollectedMeter(MeterRecord(identity), identified=True)


def test_a_run_is_owed_after_the_delay_until_it_is_answered():
    tasks, one = book(), meter()
    assert tasks.owed(one.record, T0 + timedelta(seconds=59)) == []
    now = T0 + timedelta(seconds=60)
    (run,) = tasks.owed(one.record, now)
    assert run.due == T0
    row = tasks.succeeded(run, one, now)
    assert (row.state, row.attempts) == ("done", 1)
    assert tasks.owed(one.record, now) == []
    assert tasks.next_change(now) == T0 + timedelta(hours=1, seconds=60)
    (run,) = tasks.owed(one.record, now + timedelta(hours=1))
    assert run.due == T0 + timedelta(hours=1)


def test_a_complete_task_is_tried_until_its_run_is_over_and_another_once():
    now = T0 + timedelta(minutes=5)
    tasks, one = book(), meter()
    (run,) = tasks.owed(one.record, now)
    assert tasks.tried(run, one, "no answer", now) is None
    assert tasks.owed(one.record, now) == [run]
    (following,) = tasks.owed(one.record, now + timedelta(hours=1))
    assert following.due > run.due
    (state,) = tasks.progress([one.record], now + timedelta(hours=1))
    assert (state["waiting"], state["expired"]) == (1, 0)
    once = book(complete=False)
    (run,) = once.owed(one.record, now)
    row = once.tried(run, one, "no answer", now)
    assert (row.state, row.reason, row.attempts) == ("failed", "no answer", 1)
    assert once.owed(one.record, now) == []


def test_a_run_that_nobody_finished_within_its_window_has_expired():
    tasks, one = book(window="10min"), meter()
    now = T0 + timedelta(minutes=5)
    (run,) = tasks.owed(one.record, now)
    tasks.tried(run, one, "no answer", now)
    later = T0 + timedelta(minutes=12)
    assert tasks.owed(one.record, later) == []
    (state,) = tasks.progress([one.record], later)
    assert (state["expired"], state["waiting"], state["reasons"]) == (1, 0, {"no answer": 1})
    assert tasks.owed(one.record, T0 + timedelta(hours=1, minutes=2))


def test_what_was_done_is_not_done_again_after_a_restart():
    for what, owed in (("registers", 0), ("profile", 1)):
        tasks, one = book(what=what), meter()
        now = T0 + timedelta(minutes=5)
        row = tasks.succeeded(tasks.owed(one.record, now)[0], one, now)
        again = book(what=what)
        again.restore([row])
        # Of a profile the store tells what is missing: the meter is visited, and nothing is read twice.
        assert len(again.owed(one.record, now)) == owed


def test_a_run_by_order_comes_between_those_planned():
    tasks, one = book(), meter()
    now = T0 + timedelta(minutes=5)
    tasks.succeeded(tasks.owed(one.record, now)[0], one, now)
    tasks.run_now("t", now)
    (run,) = tasks.owed(one.record, now)
    tasks.succeeded(run, one, now)
    assert tasks.owed(one.record, now) == []
    assert tasks.owed(one.record, T0 + timedelta(hours=1, minutes=2))
    with pytest.raises(TaskError, match="no task 'other'; known: t"):
        tasks.run_now("other", now)


def test_tasks_of_the_configuration_are_not_changed_by_order():
    tasks = book()
    with pytest.raises(TaskError, match="allowed: another name"):
        tasks.add(MeterTask.from_definition({"name": "t"}, origin="order"))
    with pytest.raises(TaskError, match="take it out there"):
        tasks.remove("t")
    tasks.add(MeterTask.from_definition({"name": "u", "priority": 1}, origin="order"))
    assert [task.name for task in tasks.tasks] == ["u", "t"]
    tasks.remove("u")
    assert [task.name for task in tasks.tasks] == ["t"]


def test_the_urgent_goes_first_and_only_to_its_meters():
    tasks = TaskBook(
        [
            MeterTask.from_definition({"name": "a", "priority": 3}),
            MeterTask.from_definition({"name": "b", "priority": 1, "meters": "medium:gas"}),
            MeterTask.from_definition({"name": "c", "priority": 2, "meters": "group:north"}),
        ]
    )
    gas = MeterRecord("G", medium=Medium.GAS, registration=Registration(groups=("north", "old")))
    assert [run.task.name for run in tasks.owed(gas, T0)] == ["b", "c", "a"]
    assert [run.task.name for run in tasks.owed(MeterRecord("E"), T0)] == ["a"]
