"""`concentrator head-ends` as an operator uses it."""

import json
import subprocess
import sys

from concentrator.dlms.certificates import read_certificate_request

KEYS = {"encryption_key": "FACE" * 8, "authentication_key": "CAFE" * 8}


def test_clients_are_added_listed_and_removed_and_no_key_is_shown(tmp_path):
    file, config, keys = (tmp_path / name for name in ("head_ends.json", "concentrator.toml", "keys.json"))
    file.write_text('{"clients": []}')
    keys.write_text(json.dumps(KEYS))
    for path in (file, keys):
        path.chmod(0o600)
    config.write_text(f'[concentrator]\nstate_directory = "{tmp_path}"\n[dlms]\nkey_file = "{file}"\n')

    def run(*words, status=0):
        command = [sys.executable, "-m", "concentrator", "head-ends", *words, "--config", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done
        assert "FACE" not in done.stdout + done.stderr
        assert "CAFE" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    run("add", "--client-sap", "1", "--role", "admin", "--keys", str(keys))
    run("add", "--client-sap", "2", "--role", "reader", "--keys", str(keys), "--suite", "2", status=2)
    (row,) = json.loads(run("list", "--json"))
    assert (row["client_sap"], row["role"], row["suite"]) == (1, "admin", 0)
    assert row["keys"] == ["authentication_key", "encryption_key"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "concentrator.toml", "head_ends.json", "keys.json",
    ]  # fmt: skip
    run("request", "--suite", "2")
    run("request", "--suite", "2", status=2)
    assert (tmp_path / "signing.pem").stat().st_mode & 0o777 == 0o600
    title, key = read_certificate_request((tmp_path / "signing.csr").read_bytes())
    assert title.hex().upper() == "4F44430000000001"
    assert key.curve.key_size == 384
    run("remove", "7", status=2)
    run("remove", "1")
    assert json.loads(file.read_text()) == {"clients": []}
