"""Change of a meter's keys: by wrap and by agreement, killed at every step, with the meter reachable afterwards."""

import json
import logging
import traceback

import pytest

from concentrator.collection.changed_keys import ChangedKeys
from concentrator.collection.control.errors import ControlRefusedError, NotDoneError, OutcomeOpenError
from concentrator.collection.errors import KeyFileError
from concentrator.collection.keyring import Keyring
from concentrator.orders import OrderError

from control_rig import SERIAL, ControlRig, CrashError

WAYS = [
    (0, "wrap", ["encryption", "authentication"]),
    (0, "wrap", ["authentication"]),
    (1, "agreement", ["encryption"]),
    (2, "agreement", ["encryption"]),
    (1, "wrap", ["encryption", "authentication", "master"]),
]


def way_name(way):
    return f"{way[1]}-suite{way[0]}-{'-'.join(way[2])}"


@pytest.fixture(params=WAYS, ids=way_name)
def way(request):
    return request.param


def make_rig(tmp_path, monkeypatch, suite=0):
    return ControlRig(tmp_path, monkeypatch, suite=suite)


def keys_of(rig):
    keys = rig.meter.keys
    return keys.encryption, keys.authentication, keys.master


def current(rig):
    """The keys that a concentrator that starts now would use first, and what else it has for the meter."""
    candidates = Keyring.load(rig.directory / "keys.json", rig.changed_keys_file).candidates(SERIAL)
    first = candidates[0]
    return (first.encryption_key, first.authentication_key, first.master_key), first.standing.value


async def test_the_meter_takes_the_new_keys_and_is_read_with_them(tmp_path, monkeypatch, way, capsys, caplog):
    caplog.set_level(logging.DEBUG)
    suite, method, names = way
    rig = make_rig(tmp_path, monkeypatch, suite)
    old = keys_of(rig)
    result = await rig.order("change_keys", method=method, keys=names)
    new = keys_of(rig)
    assert [a != b for a, b in zip(old, new, strict=True)] == [
        name in names for name in ("encryption", "authentication", "master")
    ]
    assert result["outcome"] == "done"
    assert result["note"] == "the meter takes the new keys"
    assert result["after"] == {"generation": 1}
    assert current(rig) == (new, "current")
    assert rig.changed_keys_file.stat().st_mode & 0o777 == 0o600
    (entry,) = await rig.trail()
    assert entry.state == "done"
    # And once more, from there, after a restart.
    rig.restart()
    await rig.load()
    await rig.order("change_keys", method=method, keys=names)
    assert (await rig.trail())[0].after == {"generation": 2}
    assert keys_of(rig) != new
    assert (await rig.order("ping", confirm=False))["value"]
    shown = capsys.readouterr()
    texts = [shown.out, shown.err, caplog.text, repr(result), repr(await rig.trail()), repr(rig.keyring)]
    texts += [path.read_bytes().decode("latin-1") for path in rig.directory.iterdir() if "store" in path.name]
    for key in {*old, *new, *keys_of(rig)}:
        for form in (key.hex(), key.hex().upper(), repr(key), key.decode("latin-1")):
            assert not any(form in text for text in texts)
    rig.close()


async def test_killed_at_every_step_the_meter_is_reachable_afterwards(tmp_path, monkeypatch, way):
    suite, method, names = way
    fatal = 0
    outcomes = set()
    while True:
        fatal += 1
        directory = tmp_path / str(fatal)
        directory.mkdir()
        rig = make_rig(directory, monkeypatch, suite)
        rig.steps.fatal = fatal
        old = keys_of(rig)
        try:
            await rig.order("change_keys", method=method, keys=names)
        except CrashError:
            text = traceback.format_exc()
            assert not any(key.hex() in text for key in (*old, *keys_of(rig)))
        else:
            rig.close()
            break
        step = rig.steps.names[-1]
        rig.restart()
        await rig.load()
        await rig.visit()
        keys, standing = current(rig)
        assert (keys, standing) == (keys_of(rig), "current"), step
        trail = await rig.trail()
        assert all(entry.state in ("done", "not_done") for entry in trail), (step, trail)
        if trail:
            changed = keys_of(rig) != old
            assert trail[-1].state == ("done" if changed else "not_done"), step
            outcomes.add(trail[-1].state)
        # The way is open for the next one.
        result = await rig.order("change_keys", method="wrap")
        assert result["outcome"] == "done"
        rig.close()
    assert fatal > 12
    assert outcomes == {"done", "not_done"}


@pytest.mark.parametrize("cut", ["meter", "link"])
async def test_an_answer_that_is_lost_is_settled_at_the_next_contact(tmp_path, monkeypatch, way, cut):
    suite, method, names = way
    rig = make_rig(tmp_path, monkeypatch, suite)
    old = keys_of(rig)

    def lose():
        if cut == "meter":
            rig.meter.power_off()
        else:
            rig.link.cut = True

    use = rig.meter.security_setup._use
    rig.meter.security_setup._use = lambda keys: (use(keys), lose())
    with pytest.raises(OutcomeOpenError, match="it is not known whether it was done") as caught:
        await rig.order("change_keys", method=method, keys=names)
    assert keys_of(rig) != old
    assert not any(key.hex() in str(caught.value) for key in (*old, *keys_of(rig)))
    rig.meter.security_setup._use = use
    rig.meter.power_on()
    rig.link.cut = False
    await rig.visit()
    assert current(rig) == (keys_of(rig), "current")
    trail = await rig.trail()
    assert {entry.state for entry in trail} == {"done"}
    # What was agreed on and never arrived is mended by keys under the master key.
    assert len(trail) == (2 if method == "agreement" else 1)
    rig.close()


async def test_a_meter_that_says_yes_and_keeps_its_keys_is_found_out(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    rig.meter.security_setup._use = lambda _keys: None
    with pytest.raises(NotDoneError, match="not done: the meter takes the keys that it had before"):
        await rig.order("change_keys")
    assert current(rig) == (keys_of(rig), "current")
    assert (await rig.order("ping", confirm=False))["value"]
    # The keys that were not taken are kept: a meter may take its time.
    kept = json.loads(rig.changed_keys_file.read_text())["meters"][SERIAL]
    assert len(kept["retired"]) == 1
    rig.close()


async def test_a_meter_that_takes_the_keys_later_is_still_reached(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    use, later = rig.meter.security_setup._use, []
    rig.meter.security_setup._use = later.append
    with pytest.raises(NotDoneError):
        await rig.order("change_keys")
    use(later[0])
    await rig.visit()
    assert current(rig) == (keys_of(rig), "current")
    rig.close()


async def test_a_meter_that_is_set_back_is_reached_by_the_key_file(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    old = keys_of(rig)
    for _ in range(7):
        await rig.order("change_keys")
    rig.meter.keys.encryption, rig.meter.keys.authentication, _master = old
    await rig.visit()
    assert current(rig)[0][:2] == old[:2]
    rig.close()


@pytest.mark.parametrize("begins_anew", [True, False])
async def test_invocation_counters_go_on_under_the_new_key(tmp_path, monkeypatch, begins_anew):
    """A meter may begin its counters anew with a new key, or not: both are read, and none of ours comes twice."""
    rig = make_rig(tmp_path, monkeypatch)
    received = rig.meter.server.devices[1].received_counters
    await rig.order("ping", confirm=False)
    (before,) = received[1].values()
    if not begins_anew:
        rig.meter.server.devices[1].keys_changed = lambda: None
    use = rig.meter.security_setup._use

    def change(keys):
        use(keys)
        if begins_anew:
            rig.meter.counter.value = 1

    rig.meter.security_setup._use = change
    await rig.order("change_keys")
    await rig.order("ping", confirm=False)
    (after,) = received[1].values()
    assert after > before
    rig.restart()
    await rig.order("ping", confirm=False)
    assert max(received[1].values()) > after
    assert rig.collected.replays == 0
    rig.close()


async def test_a_counter_that_is_nearly_used_up_begins_anew_with_the_new_key(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    rig.store.invocation_counter("020dc0000001/1").next()
    high = rig.store.invocation_counter("020dc0000001/1")
    high.raise_to(0xFFFF_0000)
    high.next()
    await rig.order("change_keys")
    await rig.order("ping", confirm=False)
    assert max(rig.meter.server.devices[1].received_counters[1].values()) < 5000
    rig.close()


async def test_what_the_key_file_lacks_is_told(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    key_file = tmp_path / "keys.json"
    entry = json.loads(key_file.read_text())["meters"][SERIAL]
    with pytest.raises(ControlRefusedError, match="signing_key and meter_signing_key"):
        await rig.order("change_keys", method="agreement")
    del entry["master_key"]
    key_file.write_text(json.dumps({"meters": {SERIAL: entry}}))
    rig.restart()
    with pytest.raises(ControlRefusedError, match="no master_key"):
        await rig.order("change_keys")
    with pytest.raises(OrderError, match=r"keys: got .*; allowed: a list of some of encryption$"):
        await rig.order("change_keys", method="agreement", keys=["authentication"])
    with pytest.raises(OrderError, match="master together with encryption"):
        await rig.order("change_keys", keys=["master"])
    assert await rig.trail() == []
    assert not rig.changed_keys_file.exists()
    rig.close()


async def test_new_keys_in_the_key_file_count_again(tmp_path, monkeypatch):
    rig = make_rig(tmp_path, monkeypatch)
    await rig.order("change_keys")
    entry = rig.meter.key_file_entry()
    (tmp_path / "keys.json").write_text(json.dumps({"meters": {SERIAL: entry}}))
    rig.restart()
    assert current(rig) == (keys_of(rig), "current")
    await rig.order("ping", confirm=False)
    rig.close()


def test_a_file_of_changed_keys_that_others_may_read_or_that_is_damaged_is_refused(tmp_path):
    path = tmp_path / "meter_keys.json"
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="is not understood; put back a copy"):
        ChangedKeys(path)
    path.write_text('{"meters": {}}')
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="others could read it"):
        ChangedKeys(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suite": 3}, "suite has to be 0, 1 or 2"),
        ({"suite": 1, "signing_key": "01", "meter_signing_key": "02"}, "both"),
        ({"signing_key": "01", "meter_signing_key": "02"}, "need suite 1 or 2"),
        ({"master_key": "12"}, "master_key has to be 32 or 64"),
        ({"suite": 2}, "encryption_key of suite 2 has 64 digits"),
    ],
)
def test_a_wrong_entry_of_the_key_file_is_told_without_its_keys(tmp_path, change, words):
    path = tmp_path / "keys.json"
    entry = {"encryption_key": "5EC5E700" * 4, "authentication_key": "5EC5E701" * 4, **change}
    path.write_text(json.dumps({"meters": {"M1": entry}}))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=words) as caught:
        Keyring.load(path)
    assert "5EC5E7" not in str(caught.value)
