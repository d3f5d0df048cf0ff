"""The units as systemd reads them, and the installation into a directory."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ("concentrator.service", "concentrator-web.service")
pytestmark = pytest.mark.system
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (Debian package systemd)"
)


def unit(name):
    settings = {}
    for line in (ROOT / "systemd" / name).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_the_exposure_of_each_unit_is_low(name):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(ROOT / "systemd" / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@needs_systemd
def test_the_units_hold_nothing_that_systemd_does_not_know(tmp_path):
    for name in UNITS:
        text = (ROOT / "systemd" / name).read_text()
        # The program is not on this machine; verify wants it to be.
        (tmp_path / name).write_text(text.replace("/opt/concentrator/bin/concentrator", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "concentrator" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_page_has_neither_the_modem_nor_the_services_user():
    service, page = unit("concentrator.service"), unit("concentrator-web.service")
    assert page["User"] != service["User"]
    assert page["PrivateDevices"] == ["yes"]
    assert "SupplementaryGroups" not in page
    assert "DeviceAllow" not in page
    assert "StateDirectory" not in page
    assert service["Type"] == ["notify"]
    assert service["WatchdogSec"] == ["30"]


def test_an_installation_into_a_directory_runs_from_there(tmp_path):
    environment = {
        key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")
    }
    subprocess.run(
        ["make", "--silent", "install", f"DESTDIR={tmp_path}"],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=170,
    )
    program = tmp_path / "opt/concentrator/bin/concentrator"
    helped = subprocess.run([program, "--help"], cwd="/", capture_output=True, text=True, check=True)
    assert "Usage" in helped.stdout
    lib = tmp_path / "opt/concentrator/lib"
    shebang = program.read_text().splitlines()[0].removeprefix("#!").split()
    found = subprocess.run(
        [
            *shebang,
            "-c",
            f"import sys; sys.path.insert(0, {str(lib)!r}); import concentrator; print(concentrator)",
        ],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(lib) in found.stdout
    for path in (
        "usr/lib/systemd/system/concentrator.service",
        "usr/lib/systemd/system/concentrator-web.service",
        "usr/lib/sysusers.d/concentrator.conf",
        "usr/lib/tmpfiles.d/concentrator.conf",
        "etc/concentrator/concentrator.toml.example",
    ):
        assert (tmp_path / path).stat().st_size > 0, path
    assert (tmp_path / "etc/concentrator/concentrator.toml").stat().st_mode & 0o777 == 0o640
    assert str(tmp_path) not in (tmp_path / "usr/lib/systemd/system/concentrator.service").read_text()
    moved = tmp_path / "elsewhere"
    (tmp_path / "opt/concentrator").rename(moved)
    subprocess.run([moved / "bin/concentrator", "--help"], cwd="/", capture_output=True, check=True)
