"""The configuration: a mistake gets one line that names the key, what was given and what is allowed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator import config as configuration
from concentrator.access.full_check import mistakes_of
from concentrator.config import ConfigError, config_example, parse_config

CONCENTRATOR = [sys.executable, "-m", "concentrator"]


def concentrator(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*CONCENTRATOR, *arguments], capture_output=True, text=True, timeout=30, check=False
    )


def test_ports_that_are_gone_do_not_keep_an_operator_from_asking(tmp_path):
    text = '[modem]\nport = "/dev/gone"\n'
    with pytest.raises(ConfigError, match=r"modem\.port"):
        parse_config(text)
    assert parse_config(text, ports_exist=False).modem.port == "/dev/gone"


def test_the_example_holds_and_shows_every_default():
    config = parse_config(config_example())
    assert config == configuration.Config()


def test_the_example_names_every_key_with_what_is_allowed():
    text = config_example()
    for name, kind, repeats in configuration._SECTIONS:
        heading = f"[[{name}]]" if repeats else f"[{name}]"
        assert heading in text
        for key in dataclasses.fields(kind):
            assert re.search(rf"^(# )?{key.name} = ", text, re.MULTILINE), key.name


def test_the_uncommented_example_differs_only_in_ports_that_are_not_there():
    text = re.sub(r"^# (?=[a-z\[])", "", config_example(), flags=re.MULTILINE)
    text = "\n".join(line for line in text.splitlines() if re.match(r"^(\[|[a-z_0-9]+ = )", line))
    text = re.sub(r'"/dev/tty[A-Z]+\d"', '"/dev/null"', text)
    config = parse_config(text)
    assert config.modem is not None
    assert config.radio is not None
    assert len(config.mqtt) == len(config.push) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[modem]\nbaud = 3", ["modem.baud", "unknown key", "baud_rate"]),
        ("[modme]", ["[modme]", "unknown section", "modem"]),
        ("[web]\nport = 99999", ["web.port", "99999", "1 to 65535"]),
        ('[web]\nport = "8080"', ["web.port", "'8080'", "text", "whole number"]),
        ("[web]\nenabled = 1", ["web.enabled", "1", "true or false"]),
        ("[web]\nport = true", ["web.port", "True", "whole number"]),
        ("[web]\nport = 80.5", ["web.port", "80.5", "whole number"]),
        ('[modem]\nport = "/dev/nope"', ["modem.port", "/dev/nope", "serial device that exists"]),
        ('[modem]\nport = "/etc/passwd"', ["modem.port", "/etc/passwd", "serial device"]),
        ("[modem]\nbaud_rate = 4711", ["modem.baud_rate", "4711", "115200"]),
        ('[modem]\nport = "/dev/null"\nfamily = "x10"', ["modem.family", "x10", "prime, g3"]),
        (
            '[concentrator]\nstate_directory = "here"',
            ["concentrator.state_directory", "here", "absolute path"],
        ),
        ('[concentrator]\nname = "a/b"', ["concentrator.name", "a/b", "letters"]),
        ('[collection]\nkey_file = "/nope"', ["collection.key_file", "/nope", "exists"]),
        ('[collection]\nprofile = "99.1"', ["collection.profile", "99.1", "OBIS"]),
        ("[mqtt]", ["mqtt", "[[mqtt]]"]),
        ('[[mqtt]]\nhost = "-"', ["mqtt[1].host", "host name"]),
        ('[[mqtt]]\nhost = "a"\n[[push]]\nname = "mqtt"\nhost = "b"', ["two destinations", "mqtt"]),
        ('[[mqtt]]\nname = "m"\nhost = "a"\nport = 0', ["mqtt[1].port", "0", "1 to 65535"]),
        ("modem = 5", ["modem", "5", "[modem]"]),
        ("[web", ["not TOML"]),
    ],
)
def test_a_mistake_is_named_in_one_line(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "file.toml")
    # A default that does not hold on this machine is a mistake of its own.
    (line,) = [one for one in str(caught.value).splitlines() if all(word in one for word in words)]
    assert line.startswith("file.toml: ")


def test_each_mistake_has_a_line_of_its_own(tmp_path):
    text = '[concentrator]\nname = "a b"\n[web]\nport = "x"\nnonsense = 1\n[nowhere]\n[[push]]\nhost = "-"\n'
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "file.toml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("file.toml: ") for line in lines)
    for words in (
        "concentrator.name: got 'a b'",
        "web.port: got 'x'",
        "web.nonsense: unknown",
        "[nowhere]",
        "push[1].host",
    ):
        assert len([line for line in lines if words in line]) == 1
    assert len(lines) == 5
    assert [mistake.line for mistake in mistakes_of(text, "file.toml") if "web." in mistake.words] == [4, 5]
    bad = tmp_path / "bad.toml"
    bad.write_text(text)
    result = concentrator("check-config", str(bad))
    assert result.returncode == 2
    said = result.stderr.splitlines()
    assert len(said) == 5
    assert all(line.startswith(f"concentrator: {bad}: ") for line in said)


def test_a_port_that_may_come_later_can_be_waited_for():
    config = parse_config('[modem]\nport = "/dev/not-yet"\nwait_for_port = true')
    assert config.modem is not None
    assert config.modem.port == "/dev/not-yet"


def test_a_secret_in_the_wrong_place_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        parse_config('[[mqtt]]\npassword = "hunter2"')
    assert "hunter2" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_configuration_or_a_named_mistake(text):
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_config(text), configuration.Config)


def test_commands_end_with_the_promised_status(tmp_path: Path):
    example = concentrator("config", "example")
    assert example.returncode == 0
    good = tmp_path / "good.toml"
    good.write_text(example.stdout)
    assert concentrator("check-config", str(good)).returncode == 0
    bad = tmp_path / "bad.toml"
    bad.write_text("[web]\nport = 0\n")
    for arguments in (
        ("check-config", str(bad)),
        ("run", "--config", str(bad)),
        ("page", "--config", str(bad)),
    ):
        result = concentrator(*arguments)
        assert result.returncode == 2, result
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert "web.port" in line
        assert "1 to 65535" in line
    missing = concentrator("check-config", str(tmp_path / "none.toml"))
    assert missing.returncode == 2
    assert "none.toml" in missing.stderr


def test_an_open_key_file_is_refused_without_showing_a_key(tmp_path: Path):
    keys = tmp_path / "keys.json"
    keys.write_text(
        '{"meters": {"1": {"encryption_key": "00112233445566778899aabbccddee", "authentication_key": ""}}}'
    )
    keys.chmod(0o644)
    file = tmp_path / "c.toml"
    file.write_text(f'[collection]\nkey_file = "{keys}"\n')
    result = concentrator("check-config", str(file))
    assert result.returncode == 2
    assert "chmod 0600" in result.stderr
    keys.chmod(0o600)
    result = concentrator("check-config", str(file))
    assert result.returncode == 2
    assert "encryption_key" in result.stderr
    assert "00112233" not in result.stderr


def test_a_state_directory_that_cannot_be_made_is_told_at_start(tmp_path: Path):
    (tmp_path / "file").write_text("")
    file = tmp_path / "c.toml"
    file.write_text(f'[concentrator]\nstate_directory = "{tmp_path}/file/state"\n')
    result = concentrator("run", "--config", str(file), "--no-page")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "concentrator.state_directory" in line


def test_the_status_of_a_service_that_does_not_run_is_a_failure_not_a_mistake(tmp_path: Path):
    file = tmp_path / "c.toml"
    file.write_text(f'[concentrator]\nstate_directory = "{tmp_path}/state"\n')
    result = concentrator("status", "--config", str(file))
    assert result.returncode == 1
    assert "is the concentrator running?" in result.stderr


def test_a_page_port_in_use_is_told_at_start(tmp_path: Path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "c.toml"
        file.write_text(f'[concentrator]\nstate_directory = "{tmp_path}/state"\n[web]\nport = {port}\n')
        result = concentrator("run", "--config", str(file))
    assert result.returncode == 2
    assert f"web.port: got {port}" in result.stderr
