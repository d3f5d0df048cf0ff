"""The tasks that are in force, and how far each meter is with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from concentrator.collection.meter_tasks import MeterTask, TaskError, TaskKind
from concentrator.collection.registry import CollectedMeter
from concentrator.model import MeterRecord
from concentrator.store.collection_tables import TaskRunRow
from concentrator.store.readings import to_epoch

DONE, FAILED, EXPIRED = "done", "failed", "expired"
_REASONS_SHOWN = 5


class OwedRun(NamedTuple):
    """A run of a task that a meter has yet to answer."""

    task: MeterTask
    due: datetime


@dataclass(slots=True)
class TaskState:
    """How far one meter is with one task: the newest run that is over, and the attempts of the one that is on."""

    done_run: int = 0
    state: str = ""
    attempts: int = 0
    finished_at: int = 0
    reason: str = ""
    on_run: int = 0
    # Attempts that failed in the run that is on, and why the last did.
    tried: int = 0
    trouble: str = ""


class TaskBook:
    """Tasks by name, and the state of every meter in each.

    `delay_s` is how long after its due time a run begins: meters capture at the ends of intervals, and their clocks
    are not quite ours.
    """

    def __init__(self, tasks: Iterable[MeterTask], delay_s: float = 0.0) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._delay = timedelta(seconds=delay_s)
        self._states: dict[str, dict[str, TaskState]] = {name: {} for name in self._tasks}
        # Runs that an order asked for, outside the schedule.
        self._extra_runs: dict[str, datetime] = {}
        # Due times as they are at a moment: the same for all meters, and asked for each.
        self._current: dict[str, datetime | None] = {}
        self._current_until = datetime.min.replace(tzinfo=UTC)
        self._current_from = datetime.max.replace(tzinfo=UTC)

    @property
    def tasks(self) -> list[MeterTask]:
        """All of them, the most urgent first."""
        return sorted(self._tasks.values(), key=lambda task: (task.priority, task.name))

    def add(self, task: MeterTask) -> None:
        """Take in a task, or put it in the place of one that came by order.

        Raises:
            TaskError: the configuration has one of that name.
        """
        known = self._tasks.get(task.name)
        if known is not None and known.origin == "configuration":
            raise TaskError(f"name: the configuration has a task {task.name!r}; allowed: another name")
        self._tasks[task.name] = task
        self._states[task.name] = {}
        self._forget_times()

    def remove(self, name: str) -> None:
        """Take a task away that came by order.

        Raises:
            TaskError: there is none, or it stands in the configuration.
        """
        if self.known(name).origin == "configuration":
            raise TaskError(f"task {name}: stands in the configuration; take it out there")
        del self._tasks[name], self._states[name]
        self._extra_runs.pop(name, None)
        self._forget_times()

    def known(self, name: str) -> MeterTask:
        """The task of a name.

        Raises:
            TaskError: there is none.
        """
        if name not in self._tasks:
            raise TaskError(f"no task {name!r}; known: {', '.join(sorted(self._tasks))}")
        return self._tasks[name]

    def run_now(self, name: str, now: datetime) -> None:
        """Begin a run outside the schedule; the next planned one comes as planned.

        Raises:
            TaskError: there is no such task.
        """
        self._extra_runs[self.known(name).name] = now - self._delay
        self._forget_times()

    def restore(self, rows: Iterable[TaskRunRow]) -> None:
        """Take over what was kept of an earlier run of the service.

        Of profiles the store itself tells what is missing: their meters are visited, and nothing is read twice.
        """
        for row in rows:
            if row.task in self._states and self._tasks[row.task].what is not TaskKind.PROFILE:
                state = TaskState(row.due_at, row.state, row.attempts, row.finished_at, row.reason)
                self._states[row.task][row.meter] = state

    # What is to be done

    def owed(self, record: MeterRecord, now: datetime) -> list[OwedRun]:
        """What a meter owes at `now`, the most urgent first."""
        self._refresh_times(now)
        owed: list[OwedRun] = []
        for name, due in self._current.items():
            if due is None:
                continue
            state = self._states[name].get(record.identity)
            if (state is None or state.done_run < to_epoch(due)) and self._is_for(self._tasks[name], record):
                owed.append(OwedRun(self._tasks[name], due))
        owed.sort(key=lambda run: (run.task.priority, run.due))
        return owed

    def next_change(self, now: datetime) -> datetime:
        """When the next run begins, in a day at the latest."""
        self._refresh_times(now)
        return self._current_until

    def _refresh_times(self, now: datetime) -> None:
        if self._current_from <= now < self._current_until:
            return
        before = dict(self._current)
        began = now - self._delay
        self._current = {}
        changes = [now + timedelta(days=1)]
        for task in self._tasks.values():
            due = task.current_run(began)
            extra = self._extra_runs.get(task.name)
            if extra is not None and (due is None or extra > due):
                due = extra
            self._current[task.name] = due
            following = task.schedule.next_due(began)
            if following is not None:
                changes.append(following + self._delay)
            end = None if due is None else task.run_end(due)
            if end is not None and end > began:
                changes.append(end + self._delay)
        self._current_from, self._current_until = now, min(changes)
        for name, due in before.items():
            if due is not None and self._current.get(name) != due:
                self._expire(name, to_epoch(due), to_epoch(now))

    def _expire(self, name: str, due: int, now: int) -> None:
        """A run is over: meters that were tried in it and did not answer are done with it."""
        for state in self._states.get(name, {}).values():
            if state.on_run == due and state.done_run < due:
                state.done_run, state.state, state.finished_at = due, EXPIRED, now
                state.attempts, state.reason = state.tried, state.trouble
                state.tried, state.trouble = 0, ""

    def _forget_times(self) -> None:
        self._current_until = datetime.min.replace(tzinfo=UTC)

    @staticmethod
    def _is_for(task: MeterTask, record: MeterRecord) -> bool:
        return task.meters.holds(record.identity, record.medium.value, record.registration.groups)

    # What became of it

    def succeeded(self, run: OwedRun, meter: CollectedMeter, now: datetime) -> TaskRunRow:
        """A meter has answered for a run; returns what is to be kept."""
        state = self._state(run, meter)
        state.tried += 1
        return self._over(run, meter, DONE, "", now)

    def tried(self, run: OwedRun, meter: CollectedMeter, reason: str, now: datetime) -> TaskRunRow | None:
        """A meter was asked for a run and did not answer; returns what is to be kept when that was the last try."""
        state = self._state(run, meter)
        state.tried += 1
        state.trouble = reason
        return None if run.task.complete else self._over(run, meter, FAILED, reason, now)

    def refused(self, run: OwedRun, meter: CollectedMeter, reason: str, now: datetime) -> TaskRunRow:
        """A meter cannot answer for a run, however often it is asked; returns what is to be kept."""
        self._state(run, meter).tried += 1
        return self._over(run, meter, FAILED, reason, now)

    def _state(self, run: OwedRun, meter: CollectedMeter) -> TaskState:
        state = self._states.setdefault(run.task.name, {}).setdefault(meter.identity, TaskState())
        due = to_epoch(run.due)
        if state.on_run != due:
            state.on_run, state.tried, state.trouble = due, 0, ""
        return state

    def _over(
        self, run: OwedRun, meter: CollectedMeter, outcome: str, reason: str, now: datetime
    ) -> TaskRunRow:
        state = self._state(run, meter)
        state.done_run, state.state, state.attempts = to_epoch(run.due), outcome, state.tried
        state.finished_at, state.reason = to_epoch(now), reason
        state.tried, state.trouble = 0, ""
        return TaskRunRow(
            run.task.name, meter.identity, state.done_run, outcome, state.attempts, state.finished_at, reason
        )

    def renamed(self, before: str, after: str) -> None:
        """A meter has told its own identity."""
        for states in self._states.values():
            state = states.pop(before, None)
            if state is not None:
                states.setdefault(after, state)

    # For people

    def progress(self, meters: Iterable[MeterRecord], now: datetime) -> list[dict[str, Any]]:
        """Of each task: its definition, the run that is on, and how many meters are done, failed, or waited for."""
        self._refresh_times(now)
        records = list(meters)
        return [self._progress_of(task, records, now) for task in self.tasks]

    def _progress_of(self, task: MeterTask, records: list[MeterRecord], now: datetime) -> dict[str, Any]:
        due = self._current[task.name]
        following = task.schedule.next_due(now - self._delay)
        mine = [record for record in records if self._is_for(task, record)]
        states = self._states[task.name]
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        first_try = 0
        for record in mine:
            state = states.get(record.identity, TaskState())
            if due is not None and state.done_run < to_epoch(due):
                counts["waiting"] += 1
                if state.trouble and state.on_run == to_epoch(due):
                    reasons[state.trouble] += 1
            elif state.state:
                counts[state.state] += 1
                first_try += state.state == DONE and state.attempts == 1
                if state.reason:
                    reasons[state.reason] += 1
        return {
            **task.definition(),
            "origin": task.origin,
            "run": due.isoformat() if due is not None else None,
            "next_run": following.isoformat() if following is not None else None,
            "meters_selected": len(mine),
            **{state: counts[state] for state in ("waiting", DONE, FAILED, EXPIRED)},
            "done_at_first_try": first_try,
            "reasons": dict(reasons.most_common(_REASONS_SHOWN)),
        }
