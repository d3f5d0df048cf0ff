"""Firmware campaigns: signed images over the simulated power line, with all that goes wrong on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import firmware_rig
import pytest
from firmware_rig import NEW, OLD, order
from virtual_substation import START, VirtualSubstation, in_virtual_time

from concentrator.collection.firmware.campaign import CampaignState, Stage
from concentrator.config import FirmwareSection
from concentrator.dlms.cosem.image_transfer import Outcome
from concentrator.orders import PAGE

pytestmark = pytest.mark.system


def substation(directory, count=2, size=5000, octets=None, manifest=None, **settings):
    """A substation whose box trusts the key of the image in its folder."""
    key = firmware_rig.make_key(directory)
    image = firmware_rig.release(directory / "images", key, size, octets, **(manifest or {}))
    section = FirmwareSection(str(directory / "release.pub"), str(directory / "images"))
    site = VirtualSubstation(directory, count, firmware=section, **settings)
    site.image = image
    for meter in site.meters:
        # Block transfers are counted, by meter.
        meter.blocks_taken = []
        write = meter.image_transfer._blocks.write
        meter.image_transfer._blocks.write = lambda index, start, octets, write=write, meter=meter: (
            meter.blocks_taken.append(index),
            write(index, start, octets),
        )
    return site


def read_all(site):
    """Every meter is known, and all that it owes is read."""
    records = [site.record(number) for number in range(len(site.meters))]
    return all(one is not None and one.record.firmware and one.profiles for one in records)


async def give(site, operation, **arguments):
    return await site.collector.carry_out(order(operation, **arguments))


def campaign(site):
    return site.collector.firmware.campaign("spring")


def stages(site):
    return [one.stage for one in campaign(site).meters.values()]


async def finished(site, limit_s=8 * 3600.0):
    over = (CampaignState.FINISHED, CampaignState.ABORTED)
    await site.until(lambda: campaign(site).state in over, limit_s)


@in_virtual_time
async def test_an_image_arrives_octet_by_octet_and_is_running_afterwards(tmp_path):
    site = substation(tmp_path, 3)
    async with site.running():
        await site.until(lambda: read_all(site))
        told = await give(site, "firmware_start", meters="model:simulated")
        assert (told["meters"], told["left_out"]) == (3, 0)
        await finished(site)
        assert [bytes(meter.image_transfer._blocks.octets()) for meter in site.meters] == [site.image] * 3
        assert [meter.firmware.decode() for meter in site.meters] == [NEW] * 3
        assert [site.record(number).record.firmware for number in range(3)] == [NEW] * 3
        for meter in site.meters:
            assert meter.blocks_taken == sorted(set(meter.blocks_taken)), "each block once"
        assert campaign(site).state is CampaignState.FINISHED
        trail = await site.store.audit_entries(20)
        assert {entry.operation for entry in trail} == {"firmware_start", "firmware_result"}
        (one,) = [entry for entry in trail if entry.meter == site.meters[0].serial]
        assert (one.before, one.after, one.state) == ({"firmware": OLD}, {"firmware": NEW}, "done")
        # The first meter was done before the others began.
        status = await give(site, "firmware_status", name="spring")
        assert status["campaigns"][0]["counts"]["done"] == 3
        assert status["images"][0]["to_version"] == NEW


@in_virtual_time
async def test_nothing_reaches_a_meter_of_an_image_that_is_not_to_be_trusted(tmp_path):
    site = substation(tmp_path)
    images, stranger = tmp_path / "images", firmware_rig.make_key(tmp_path, "stranger")
    manifest, image = images / firmware_rig.NAME, images / "meter-2.0.bin"
    signature = manifest.with_name(manifest.name + ".sig")
    async with site.running():
        await site.until(lambda: read_all(site))
        good = {path: path.read_bytes() for path in (manifest, image, signature)}

        async def refused(words, **arguments):
            with pytest.raises(Exception, match=words):
                await give(site, "firmware_start", **arguments)
            for path, octets in good.items():
                path.write_bytes(octets)

        signature.unlink()
        await refused("not signed")
        firmware_rig.release(images, stranger)
        await refused("none of the trusted keys")
        manifest.write_bytes(good[manifest].replace(b"ODC-SIM 2.0", b"ODC-SIM 2.1"))
        await refused("none of the trusted keys")
        image.write_bytes(good[image][:-1] + b"x")
        await refused("SHA-256 is not that")
        image.write_bytes(good[image][:-1])
        await refused("has 4999 octets")
        image.unlink()
        await refused("cannot be read")
        await refused("allowed: the name of a manifest", image="../release.pem")
        await refused("no campaign|image is for no meter", meters="firmware:9.9")
        await refused("no such meter is known", meters="NOBODY")
        await refused("unknown; allowed", colour="red")
        assert all(not meter.blocks_taken and meter.image_transfer.status == 0 for meter in site.meters)
        assert {entry.state for entry in await site.store.audit_entries(50)} == {"failed"}


@in_virtual_time
async def test_an_image_for_others_is_refused_with_the_reason(tmp_path):
    site = substation(tmp_path, manifest={"from_versions": ("ODC-SIM 0.9",)})
    async with site.running():
        await site.until(lambda: read_all(site))
        serial = site.meters[0].serial
        with pytest.raises(Exception, match=f"meter {serial}: its firmware is ODC-SIM 1.0, the image is for"):
            await give(site, "firmware_start", meters=serial)
        with pytest.raises(Exception, match="the image is for no meter"):
            await give(site, "firmware_start")


@in_virtual_time
async def test_only_who_may_change_meters_may_begin_and_everybody_may_stop(tmp_path):
    site = substation(tmp_path, size=20_000)
    async with site.running():
        await site.until(lambda: read_all(site))
        with pytest.raises(Exception, match="is not taken from the page"):
            await site.collector.carry_out(order("firmware_start", PAGE))
        await give(site, "firmware_start")
        await site.collector.carry_out(order("firmware_pause", PAGE))
        assert campaign(site).state is CampaignState.PAUSED
        with pytest.raises(Exception, match="is not taken from the page"):
            await site.collector.carry_out(order("firmware_resume", PAGE))
        await site.collector.carry_out(order("firmware_abort", PAGE))
        assert set(stages(site)) == {Stage.ABORTED}
        with pytest.raises(Exception, match="aborted already"):
            await give(site, "firmware_abort")
        states = [(entry.operation, entry.state) for entry in await site.store.audit_entries(20)]
        assert states == [
            ("firmware_abort", "failed"),
            ("firmware_abort", "done"),
            ("firmware_resume", "refused"),
            ("firmware_pause", "done"),
            ("firmware_start", "done"),
            ("firmware_start", "refused"),
        ]


@in_virtual_time
async def test_no_meter_is_in_two_campaigns(tmp_path):
    site = substation(tmp_path, 2, size=30_000)
    async with site.running():
        await site.until(lambda: read_all(site))
        serials = [meter.serial for meter in site.meters]
        await give(site, "firmware_start", meters=serials[0])
        with pytest.raises(Exception, match="campaign 'spring' is under way on it"):
            await give(site, "firmware_start", name="summer", meters=serials[0])
        told = await give(site, "firmware_start", name="summer")
        assert (told["meters"], list(told["left_out_reasons"])) == (1, [serials[0]])


@in_virtual_time
async def test_a_lossy_line_loses_time_only(tmp_path):
    site = substation(tmp_path, 2, size=12_000)
    async with site.running():
        await site.until(lambda: read_all(site))
        losses = [0]
        for meter in site.meters:
            answer = meter.receive_apdu

            def receive(client, server, apdu, reply, answer=answer):
                losses[0] += 1
                # Every ninth APDU is lost, on its way there or back by turns.
                if losses[0] % 9 == 0:
                    if losses[0] % 2:
                        answer(client, server, apdu, lambda _octets: None)
                    return
                answer(client, server, apdu, reply)

            meter.receive_apdu = receive
        await give(site, "firmware_start", tries=50)
        await finished(site, 24 * 3600.0)
        assert set(stages(site)) == {Stage.DONE}
        assert [bytes(meter.image_transfer._blocks.octets()) for meter in site.meters] == [site.image] * 2


@in_virtual_time
async def test_a_new_run_of_the_service_goes_on_where_the_last_one_was_cut_off(tmp_path):
    site = substation(tmp_path, 1, size=40_000)
    meter = site.meters[0]
    async with site.running():
        await site.until(lambda: read_all(site))
        await give(site, "firmware_start", meters=meter.serial)
        await site.until(lambda: len(meter.blocks_taken) > 100)
    before = len(meter.blocks_taken)
    assert before < 313
    meter.link_lost()
    again = VirtualSubstation(
        tmp_path,
        1,
        start=START + timedelta(hours=1),
        meters=[meter],
        firmware=FirmwareSection(str(tmp_path / "release.pub"), str(tmp_path / "images")),
    )
    async with again.running():
        assert campaign(again).meters[meter.serial].stage is Stage.TRANSFERRING
        await finished(again)
    assert stages(again) == [Stage.DONE]
    assert len(meter.blocks_taken) == len(set(meter.blocks_taken)) == 313, "no block was sent twice"
    assert bytes(meter.image_transfer._blocks.octets()) == site.image


@in_virtual_time
async def test_meters_that_refuse_or_come_back_as_they_were_have_failed_and_stop_the_campaign(tmp_path):
    # Not the maker's: no meter verifies it.
    site = substation(tmp_path, 3, octets=b"XYZ" + bytes(2000))
    async with site.running():
        await site.until(lambda: read_all(site))
        await give(site, "firmware_start", failure_limit=2)
        await site.until(lambda: campaign(site).state is CampaignState.PAUSED)
        assert stages(site).count(Stage.FAILED) == 2
        failed = next(one for one in campaign(site).meters.values() if one.stage is Stage.FAILED)
        assert failed.reason == "the meter refused the image at the verification"
        assert campaign(site).reason == "2 meters have failed, the limit is 2"
        # Resumed, what has failed counts no more.
        await give(site, "firmware_resume")
        await finished(site)
        assert campaign(site).state is CampaignState.FINISHED
        assert [meter.firmware.decode() for meter in site.meters] == [OLD] * 3


@in_virtual_time
async def test_a_meter_that_comes_back_with_the_old_version_has_failed(tmp_path):
    site = substation(tmp_path, 2)
    old, late = site.meters
    old.image_transfer._activate_image = lambda _images, _octets: Outcome.DONE

    def activate(images, _octets):
        # It restarts, and shows the new version when it has.
        late.power_off()
        asyncio.get_running_loop().call_later(90, late.power_on)
        late.firmware = images[0].identification
        return Outcome.DONE

    late.image_transfer._activate_image = activate
    async with site.running():
        await site.until(lambda: read_all(site))
        await give(site, "firmware_start", settle_s=300, first=0)
        await finished(site)
        found = campaign(site).meters
        assert (found[old.serial].stage, found[late.serial].stage) == (Stage.FAILED, Stage.DONE)
        assert found[old.serial].reason == "came back with the version ODC-SIM 1.0"
        trail = await site.store.audit_entries(20)
        (entry,) = [one for one in trail if one.meter == old.serial]
        assert (entry.state, entry.after) == ("failed", {"firmware": OLD})


@in_virtual_time
async def test_a_meter_that_vanishes_fails_in_the_end_and_the_others_go_on(tmp_path):
    site = substation(tmp_path, 2, size=20_000)
    gone, there = site.meters
    async with site.running():
        await site.until(lambda: read_all(site))
        await give(site, "firmware_start", first=0, tries=3)
        await site.until(lambda: len(gone.blocks_taken) > 20)
        gone.power_off()
        await finished(site, 48 * 3600.0)
        found = campaign(site).meters
        assert found[there.serial].stage is Stage.DONE
        assert found[gone.serial].stage is Stage.FAILED
        assert "(3 tries)" in found[gone.serial].reason
        assert 0 < found[gone.serial].blocks_done < 157


@in_virtual_time
async def test_times_are_kept_to_and_routine_reading_goes_first(tmp_path):
    site = substation(tmp_path, 2, size=20_000)
    async with site.running():
        await site.until(lambda: read_all(site))
        now = site.clock.now()
        begin, activate = now + timedelta(hours=1), now + timedelta(hours=6)
        end = now + timedelta(hours=20)
        times = {"not_before": begin, "activate_from": activate, "not_after": end}
        await give(
            site, "firmware_start", first=0, **{name: moment.isoformat() for name, moment in times.items()}
        )
        await site.until(lambda: any(meter.blocks_taken for meter in site.meters))
        assert site.clock.now() >= begin
        await site.until(lambda: set(stages(site)) == {Stage.WAITING_FOR_ACTIVATION})
        assert site.clock.now() < activate
        assert [meter.firmware.decode() for meter in site.meters] == [OLD] * 2
        await finished(site, 12 * 3600.0)
        assert site.clock.now() >= activate
        assert set(stages(site)) == {Stage.DONE}
        # Nothing of the profiles was lost or late over it.
        for number in range(2):
            meter = site.record(number)
            await site.until(lambda meter=meter: meter.expected - meter.stored - meter.closed <= 1)


@in_virtual_time
async def test_after_the_latest_time_nothing_more_is_done(tmp_path):
    site = substation(tmp_path, 2, size=20_000, quiet_hours="23:00-23:30")
    async with site.running():
        await site.until(lambda: read_all(site))
        end = site.clock.now() + timedelta(hours=2)
        await give(site, "firmware_start", hours="quiet", not_after=end.isoformat())
        await finished(site)
        assert [one.reason for one in campaign(site).meters.values()] == [
            "the latest time of the campaign has passed"
        ] * 2
        assert not any(meter.blocks_taken for meter in site.meters)


@in_virtual_time
async def test_quiet_hours_are_for_firmware(tmp_path):
    site = substation(tmp_path, 2, quiet_hours="23:00-23:30")
    async with site.running():
        await site.until(lambda: read_all(site))
        await give(site, "firmware_start", hours="quiet")
        await site.until(lambda: any(meter.blocks_taken for meter in site.meters), 24 * 3600.0)
        assert site.collector.scheduler._quiet.holds(site.clock.now())
        await finished(site, 48 * 3600.0)
        assert set(stages(site)) == {Stage.DONE}


@in_virtual_time
async def test_an_image_that_was_exchanged_meanwhile_pauses_the_campaign(tmp_path):
    site = substation(tmp_path, 1)
    async with site.running():
        await site.until(lambda: read_all(site))
        later = (site.clock.now() + timedelta(minutes=30)).isoformat()
        await give(site, "firmware_start", not_before=later)
        (tmp_path / "images" / "meter-2.0.bin").write_bytes(b"ODC another")
        await site.until(lambda: campaign(site).state is CampaignState.PAUSED)
        assert "has 11 octets" in campaign(site).reason
        assert not site.meters[0].blocks_taken
