"""What the collector does in virtual time: tasks, gaps, clocks and orders, with the product's own driver and store."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from virtual_substation import START, VirtualSubstation, in_virtual_time

from concentrator.collection.control.errors import NotAuthorisedError
from concentrator.config import TaskSection
from concentrator.orders import MQTT, Order, OrderError
from concentrator.simulator.meter import DAILY_PROFILE, LOAD_PROFILE

HOUR = 3600
PROFILE, DAILY = str(LOAD_PROFILE), str(DAILY_PROFILE)


def times(bench, profile, meter=0):
    rows = bench.query(
        "SELECT DISTINCT captured_at FROM reading JOIN channel USING (channel_id) JOIN meter USING (meter_id)"
        " WHERE profile = ? AND identity = ? ORDER BY captured_at",
        profile,
        bench.meters[meter].serial,
    )
    return [at for (at,) in rows]


def everything_there(bench, number=0):
    meter = bench.record(number)
    return meter is not None and meter.expected > 0 and meter.stored + meter.closed == meter.expected


@in_virtual_time
async def test_nobody_is_visited_before_the_modem_takes_apdus(tmp_path):
    # Nodes are told while the modem still answers the questions of the start.
    bench = VirtualSubstation(tmp_path, 40)
    bench.feeder.speed = 5000.0
    async with bench.running():
        await bench.until(lambda: all(everything_there(bench, number) for number in range(40)))
        (progress,) = bench.collector.task_progress()
    assert (progress["done"], progress["done_at_first_try"], progress["reasons"]) == (40, 40, {})


@in_virtual_time
async def test_registers_are_read_each_hour_and_what_is_not_to_be_kept_goes(tmp_path):
    tasks = (
        TaskSection("registers", "registers", period="1h", objects="1-0:1.8.0*255, 1-0:99.9.9*255"),
        TaskSection("now", "instantaneous", period="30min", store=False),
        TaskSection("state", "status", period="1d", send=False),
    )
    bench = VirtualSubstation(tmp_path, 1, tasks)
    await bench.store.register_destination("a")
    async with bench.running():
        await bench.until(lambda: bench.clock.now() > START + timedelta(hours=3, minutes=20))
        pending = await bench.store.pending("a", 0, 1000)
        obis = {str(reading.channel.obis) for batch in pending for reading in batch.readings}
        assert "1-0:1.8.0*255" in obis
        assert "1-0:32.7.0*255" in obis
        # Not for the destinations.
        assert "0-0:96.3.10*255" not in obis
        await bench.store.acknowledge("a", [batch.sequence for batch in pending])
        await bench.store.purge(timedelta(days=45))
        kept = dict(bench.query("SELECT obis, COUNT(*) FROM reading_in_full GROUP BY obis"))
        assert kept["1-0:1.8.0*255"] == 4
        assert kept["0-0:96.3.10*255"] == 2
        assert "1-0:32.7.0*255" not in kept
        truth = bench.meters[0].load
        for at, value in bench.query(
            "SELECT captured_at, value FROM reading JOIN channel USING (channel_id) WHERE obis = '1-0:1.8.0*255'"
        ):
            moments = [datetime.fromtimestamp(at + late, UTC) for late in (-60, 60)]
            assert truth.at(moments[0])[0] <= value <= truth.at(moments[1])[0]


@pytest.mark.parametrize(
    "start", [datetime(2026, 10, 24, 20, tzinfo=UTC), datetime(2026, 3, 27, 20, tzinfo=UTC)]
)
def test_days_of_25_and_of_23_hours(tmp_path, start):
    @in_virtual_time
    async def test(tmp_path):
        tasks = (
            TaskSection("days", objects=DAILY, period="1d"),
            TaskSection("quarters", objects=PROFILE, period="1h"),
        )
        bench = VirtualSubstation(tmp_path, 2, tasks, start=start, time_zone="Europe/Berlin", history_days=3)
        bench.meters[1].tells_deviation = False
        async with bench.running():
            await bench.until(lambda: bench.clock.now() > start + timedelta(days=2, hours=6), 4 * 86_400)
            for number, meter in enumerate(bench.meters):
                begin = start - timedelta(days=2)
                for profile in (LOAD_PROFILE, DAILY_PROFILE):
                    truth = [
                        row.captured_at.timestamp() for row in meter.truth(profile, begin, bench.clock.now())
                    ]
                    found = [at for at in times(bench, str(profile), number) if at >= begin.timestamp()]
                    # Up to what was captured after the last round.
                    assert found == truth[: len(found)]
                    assert len(truth) - len(found) <= 4
                daily = times(bench, DAILY, number)
                lengths = {(b - a) // HOUR for a, b in pairwise(daily)}
                assert lengths == {24, 25 if start.month == 10 else 23}
                assert everything_there(bench, number)

    test(tmp_path)


@in_virtual_time
async def test_gaps_have_reasons_and_only_those_that_may_come_are_asked_for_again(tmp_path):
    bench = VirtualSubstation(tmp_path, 1, (TaskSection(objects=PROFILE, period="1h"),), history_days=3)
    meter = bench.meters[0]
    noon = int(START.timestamp())
    meter.installed_at = START - timedelta(days=2)
    meter.dead = ((noon - 20 * HOUR, noon - 18 * HOUR),)
    meter.forgotten = ((noon - 6 * HOUR, noon - 5 * HOUR),)
    async with bench.running():
        await bench.until(lambda: everything_there(bench) or bench.query("SELECT 1 FROM open_gap"))
        await asyncio.sleep(60)
        closed = bench.query("SELECT first_at, last_at, reason FROM closed_gap ORDER BY first_at")
        assert [reason for _, _, reason in closed] == [
            "the meter did not record yet",
            "the meter was without power",
        ]
        assert closed[0][1] == noon - 48 * HOUR - 900
        assert closed[1][:2] == (noon - 20 * HOUR + 900, noon - 18 * HOUR)
        (gap,) = bench.query("SELECT first_at, last_at, reason, tries FROM open_gap")
        assert gap == (noon - 6 * HOUR + 900, noon - 5 * HOUR, "the meter has no data for it", 1)
        # It finds the rows again, and they are asked for when their pause is over.
        meter.forgotten = ()
        await bench.until(lambda: not bench.query("SELECT 1 FROM open_gap"))
        assert bench.clock.now() >= START + timedelta(hours=1)
        assert set(range(noon - 6 * HOUR + 900, noon - 5 * HOUR + 1, 900)) <= set(times(bench, PROFILE))
        assert everything_there(bench)


@in_virtual_time
async def test_what_the_buffer_has_lost_is_closed_with_that_reason(tmp_path):
    bench = VirtualSubstation(tmp_path, 1, (TaskSection(objects=PROFILE, period="1d"),), history_days=61)
    async with bench.running():
        await bench.until(lambda: everything_there(bench))
        reasons = {reason for (reason,) in bench.query("SELECT reason FROM closed_gap")}
        assert reasons == {"the meter's buffer has lost it"}
        assert bench.record().stored >= 59 * 96


@in_virtual_time
async def test_a_clock_is_shifted_in_small_steps_confirmed_and_kept_in_the_log(tmp_path):
    bench = VirtualSubstation(tmp_path, 3, (TaskSection(objects=PROFILE, period="15min"),))
    near, far, fine = bench.meters
    near.clock_offset_s, far.clock_offset_s, fine.clock_offset_s = 130.0, -4000.0, 25.0
    async with bench.running():
        await bench.until(lambda: abs(near.clock_offset_s) < 30)
        await asyncio.sleep(HOUR)
        assert 0 < near.clock_offset_s < 30
        assert (far.clock_offset_s, fine.clock_offset_s) == (-4000.0, 25.0)
        events = bench.query("SELECT code, detail, identity FROM event LEFT JOIN meter USING (meter_id)")
        shifted = [
            detail for code, detail, identity in events if code == "clock_shifted" and identity == near.serial
        ]
        assert len(shifted) == 2
        assert "shifted by -60 s" in shifted[0]
        # Said once, however often it is seen.
        wrong = [(detail, identity) for code, detail, identity in events if code == "clock_wrong"]
        assert len(wrong) == 1
        assert wrong[0][1] == far.serial
        assert "more than 3600 s needs an order" in wrong[0][0]
        with pytest.raises(
            NotAuthorisedError, match="sync_clock changes a meter, and is not taken from MQTT"
        ):
            await bench.collector.carry_out(Order("0", "sync_clock", far.serial, origin=MQTT))
        result = await bench.collector.carry_out(Order("1", "sync_clock", far.serial))
        assert result["offset_before_s"] == pytest.approx(-4000, abs=5)
        assert abs(far.clock_offset_s) < 5
        trail = await bench.store.audit_entries(10)
        assert [(entry.order_id, entry.state) for entry in trail] == [("1", "done"), ("0", "refused")]


@in_virtual_time
async def test_without_ntp_no_clock_is_touched(tmp_path):
    async def unknown():
        return False

    bench = VirtualSubstation(tmp_path, 1, (TaskSection(objects=PROFILE),), ask=unknown)
    bench.meters[0].clock_offset_s = 130.0
    async with bench.running():
        await bench.until(lambda: everything_there(bench))
        await asyncio.sleep(HOUR)
        assert bench.meters[0].clock_offset_s == 130.0
        assert bench.watch.state == "not synchronised"
        with pytest.raises(OrderError, match="our own time is not synchronised"):
            await bench.collector.carry_out(Order("1", "sync_clock", bench.meters[0].serial))


@in_virtual_time
async def test_a_box_that_starts_in_1970_reads_when_it_knows_the_time(tmp_path):
    bench = VirtualSubstation(tmp_path, 1, (TaskSection(objects=PROFILE),))
    true_now = bench.clock.now
    bench.clock.now = lambda: datetime(1970, 1, 1, tzinfo=UTC) + (true_now() - START)
    for meter in bench.meters:
        meter._clock = true_now
    async with bench.running():
        await bench.watch.look()
        assert bench.watch.state == "not set"
        steps = bench.watch.steps
        await asyncio.sleep(HOUR)
        assert bench.query("SELECT COUNT(*) FROM reading") == [(0,)]
        bench.clock.now = true_now
        await bench.watch.look()
        assert (bench.watch.state, bench.watch.steps) == ("synchronised", steps + 1)
        await bench.until(lambda: everything_there(bench))
        assert times(bench, PROFILE)[0] > START.timestamp() - 2 * 86_400


@in_virtual_time
async def test_tasks_come_by_order_and_survive_a_restart(tmp_path):
    bench = VirtualSubstation(tmp_path, 2, (TaskSection(objects=PROFILE),))
    only = bench.meters[1].serial
    async with bench.running():
        await bench.until(lambda: everything_there(bench, 0) and everything_there(bench, 1))
        arguments = {"name": "voltage", "what": "instantaneous", "objects": "1-0:32.7.0*255", "meters": only}
        with pytest.raises(OrderError, match="order 1: args: period: got 'x'"):
            await bench.collector.carry_out(Order("1", "add_task", arguments={**arguments, "period": "x"}))
        await bench.collector.carry_out(Order("1", "add_task", arguments={**arguments, "period": "1h"}))
        count = "SELECT identity, COUNT(*) FROM reading JOIN channel USING (channel_id) JOIN meter USING (meter_id)"
        sql = count + " WHERE obis = '1-0:32.7.0*255' GROUP BY identity"
        await bench.until(lambda: bench.query(sql) == [(only, 1)])
        await bench.collector.carry_out(Order("2", "run_task", arguments={"name": "voltage"}))
        await bench.until(lambda: bench.query(sql) == [(only, 2)])
        tasks = (await bench.collector.carry_out(Order("3", "tasks")))["tasks"]
        assert [(task["name"], task["done"], task["waiting"]) for task in tasks] == [
            ("load_profile", 2, 0),
            ("voltage", 1, 0),
        ]
    profile = (TaskSection(objects=PROFILE),)
    again = VirtualSubstation(tmp_path, 2, profile, start=bench.clock.now(), meters=bench.meters)
    async with again.running():
        await again.until(lambda: all(meter.address is not None for meter in again.collector.registry))
        await asyncio.sleep(300)
        # The run was done before the restart.
        assert again.query(sql) == [(only, 2)]
        await again.until(lambda: again.query(sql) == [(only, 3)])
        await again.collector.carry_out(Order("4", "remove_task", arguments={"name": "voltage"}))
        assert [task["name"] for task in again.collector.task_progress()] == ["load_profile"]


@in_virtual_time
async def test_a_meter_that_is_away_is_tried_and_told(tmp_path):
    tasks = (
        TaskSection("once", "registers", period="6h", complete=False),
        TaskSection("until", "status", period="6h"),
    )
    bench = VirtualSubstation(tmp_path, 2, tasks)
    silent = bench.meters[0]
    answer = silent.receive_apdu
    silent.receive_apdu = lambda *_: None
    async with bench.running():
        await bench.until(lambda: bench.collector.task_progress()[0]["failed"] == 1)
        once, until = bench.collector.task_progress()
        assert (once["done"], until["done"], until["waiting"]) == (1, 1, 1)
        assert "no answer to client" in next(iter(until["reasons"]))
        await bench.until(lambda: bench.record(1) is not None)
        silent.receive_apdu = answer
        await bench.until(lambda: bench.collector.task_progress()[1]["done"] == 2)
        once, until = bench.collector.task_progress()
        assert (once["failed"], until["waiting"]) == (1, 0)


@in_virtual_time
async def test_quiet_hours_are_kept_but_orders_go(tmp_path):
    bench = VirtualSubstation(
        tmp_path, 1, (TaskSection(objects=PROFILE, period="15min"),), quiet_hours="14:00-16:00"
    )
    async with bench.running():
        await bench.until(lambda: everything_there(bench))
        await bench.until(lambda: bench.clock.now() > START + timedelta(hours=3, minutes=50))
        assert max(times(bench, PROFILE)) <= (START + timedelta(hours=2)).timestamp()
        result = await bench.collector.carry_out(
            Order("1", "read", bench.meters[0].serial, {"obis": "1-0:1.8.0*255"})
        )
        assert result["value"] > 0
        await bench.until(lambda: max(times(bench, PROFILE)) >= (START + timedelta(hours=4)).timestamp())
        assert everything_there(bench)


@in_virtual_time
async def test_quirks_of_a_model_are_kept_to(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "quirky.toml").write_text(
        'name = "quirky"\n[[match]]\nmanufacturer = ["ODC"]\n'
        "[quirks]\nselective_access = false\nclock_deviation = false\n"
        '[clock]\ntime_zone = "Europe/Berlin"\n[objects]\nload_profile = "1-0:99.1.0*255"\n'
    )
    task = (TaskSection(period="1h"),)
    bench = VirtualSubstation(tmp_path, 1, task, models_directory=str(models), answer_timeout_s=600)
    meter = bench.meters[0]
    meter.tells_deviation = False
    meter.installed_at = START - timedelta(hours=30)
    async with bench.running():
        await bench.until(lambda: everything_there(bench))
        assert bench.record().record.model == "quirky"
        truth = {
            row.captured_at.timestamp(): row.values[0]
            for row in meter.truth(LOAD_PROFILE, START - timedelta(days=2), bench.clock.now())
        }
        rows = bench.query(
            "SELECT captured_at, value FROM reading JOIN channel USING (channel_id)"
            " WHERE obis = '1-0:1.8.0*255' AND profile = ?",
            PROFILE,
        )
        assert len(rows) >= 96
        assert all(truth[at] == value for at, value in rows)
