"""A configuration on trial: whatever moment the power is cut at, one of the two files is in force."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest

from concentrator.access import configuration
from concentrator.access.configuration import ConfigurationFile, difference
from concentrator.access.configuration_desk import ConfigurationDesk
from concentrator.access.errors import ConfigurationChangeError
from concentrator.access.full_check import line_of, mistakes_of
from concentrator.clock import SystemClock
from concentrator.config import config_example

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FORMER, TRIED = 'site = "a"\n', 'site = "b"\n'


class PowerCutError(Exception):
    """In the middle of something."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "concentrator.toml"
    path.write_text(FORMER)
    path.chmod(0o640)
    return ConfigurationFile(path)


def beside(file):
    return sorted(path.name for path in file.path.parent.iterdir())


def test_what_is_applied_is_kept_once_it_is_confirmed(file):
    file.apply(TRIED, "ada", ["mqtt"], NOW)
    assert file.text() == TRIED
    assert file.path.stat().st_mode & 0o777 == 0o640
    trial = ConfigurationFile(file.path).trial()
    assert (trial.given_by, trial.connected_before) == ("ada", ("mqtt",))
    with pytest.raises(ConfigurationChangeError, match="on trial"):
        file.apply(FORMER, "ada", [], NOW)
    file.confirm()
    assert (file.text(), file.trial(), beside(file)) == (TRIED, None, ["concentrator.toml"])
    for act in (file.confirm, file.revert):
        with pytest.raises(ConfigurationChangeError, match="no configuration is on trial"):
            act()


def test_what_is_taken_back_is_as_before(file):
    file.apply(TRIED, "ada", [], NOW)
    file.revert()
    assert (file.text(), file.trial(), beside(file)) == (FORMER, None, ["concentrator.toml"])


def test_a_configuration_under_which_nothing_stays_up_is_taken_back(file):
    file.apply(TRIED, "ada", [], NOW)
    reasons = [ConfigurationFile(file.path).begin() for _ in range(5)]
    assert reasons[:4] == [""] * 4
    assert "started 4 times" in reasons[4]
    assert file.text() == FORMER


def test_a_file_changed_by_hand_meanwhile_is_not_overwritten(file):
    file.apply(TRIED, "ada", [], NOW)
    file.path.write_text('site = "c"\n')
    assert file.begin() == ""
    assert (file.text(), beside(file)) == ('site = "c"\n', ["concentrator.toml"])


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("action", ["apply", "confirm", "revert"])
def test_after_a_power_cut_one_of_both_is_in_force_and_can_be_gone_on_with(file, monkeypatch, action, step):
    if action != "apply":
        file.apply(TRIED, "ada", [], NOW)
    left = step

    def cut(real):
        def acts(*arguments, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerCutError
            return real(*arguments, **named)

        return acts

    with monkeypatch.context() as patched:
        for name in ("fsync", "fchmod"):
            patched.setattr(configuration.os, name, cut(getattr(configuration.os, name)))
        with contextlib.suppress(PowerCutError):
            file.apply(TRIED, "ada", [], NOW) if action == "apply" else getattr(file, action)()
    after = ConfigurationFile(file.path)
    assert after.text() in (FORMER, TRIED)
    assert after.begin() == ""
    if after.trial() is not None:
        assert after.text() == TRIED
        after.revert()
        assert after.text() == FORMER
    else:
        after.apply('site = "c"\n', "ada", [], NOW)
        after.revert()


def test_a_folder_that_cannot_be_written_is_told_and_nothing_changes(file, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(configuration.os, "fsync", full)
    with pytest.raises(ConfigurationChangeError, match="No space left"):
        file.apply(TRIED, "ada", [], NOW)
    assert (file.text(), file.trial()) == (FORMER, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[web]\nport = 99999\n", 2),
        ("# a\n[concentrator]\nname = 'x'\n\n[web]\nhost = '127.0.0.1'\nport = '1'\n", 7),
        ("[[mqtt]]\nname = 'a'\nhost = 'h'\n[[mqtt]]\nname = 'b'\nport = 0\n", 6),
        ("[web]\nnonsense = 1\n", 2),
        ("[nonsense]\n", 1),
        ("a = 1\nb = \n", 2),
        ("[orders]\nallow_page = 'explode'\n", 2),
        ("[web]\nport = 1\n[orders]\n# allow\nallow_mqtt = 'explode'\n", 5),
    ],
)
def test_a_mistake_names_its_line(text, line):
    (mistake,) = mistakes_of(text, "concentrator.toml")
    assert mistake.line == line
    assert line_of(text, "something else") == 0


def test_the_example_has_no_mistake_and_a_difference_shows_what_differs(tmp_path):
    text = config_example().replace("/var/lib/concentrator", str(tmp_path))
    assert mistakes_of(text, "x") == []
    changed = difference(text, text.replace("port = 8080", "port = 8081"))
    assert [line for line in changed if line[:1] in ("+", "-")] == ["-port = 8080", "+port = 8081"]
    assert difference(text, text) == []


@pytest.mark.parametrize(
    ("before", "standing", "now_connected", "lost"),
    [
        (["mqtt"], ["mqtt"], ["mqtt"], []),
        (["mqtt"], ["mqtt"], [], ["mqtt"]),
        # A folder on the box answers always: it does not stand for the head-end.
        (["archive", "mqtt"], ["archive", "mqtt"], ["archive"], ["mqtt"]),
        (["archive", "mqtt"], ["archive"], ["archive"], []),
        (["mqtt"], ["push"], [], ["push"]),
        (["mqtt"], ["push"], ["push"], []),
        (["mqtt"], [], [], []),
        ([], ["mqtt"], [], []),
    ],
)
def test_a_confirmation_waits_for_all_that_were_connected_and_still_stand_there(
    file, before, standing, now_connected, lost
):
    file.apply(TRIED, "ada", before, NOW)
    desk = ConfigurationDesk(file, SystemClock(), lambda: now_connected, lambda: standing, lambda: None, 60)

    async def note(*_words):
        pass

    async def confirm():
        return await desk.answer("confirm", {}, "ada", note)

    assert desk.state()["trial"]["waits_for"] == lost
    if lost:
        with pytest.raises(ConfigurationChangeError, match=lost[0]):
            asyncio.run(confirm())
    else:
        assert asyncio.run(confirm())["trial"] is None
