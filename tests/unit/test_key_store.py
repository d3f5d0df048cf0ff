"""Keys at rest: encrypted, never shown, taken from the forms that they come in, handed on to one recipient only."""

import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from concentrator.cli import main
from concentrator.collection.errors import KeyFileError
from concentrator.collection.key_import import read_key_list
from concentrator.collection.key_store import KeyStore
from concentrator.collection.keyring import Keyring
from concentrator.collection.machine_secret import wrapping_key

ENCRYPTION, AUTHENTICATION, RADIO = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
CANARY = bytes.fromhex("C0FFEE0123456789C0FFEE9876543210")
CANARY_PASSWORD = "Kanarienvogel-42"


def shows(text, secret):
    """Whether a text shows a secret in any usual form."""
    octets = text.encode() if isinstance(text, str) else text
    forms = (secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret))
    return any(form in octets for form in forms)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "concentrator.toml"
    file.write_text(f'[concentrator]\nstate_directory = "{tmp_path}/state"\n')
    return file


def command(config, *words):
    return CliRunner().invoke(main, [words[0], words[1], "--config", str(config), *map(str, words[2:])])


def test_keys_come_back_after_a_restart_and_are_not_in_the_file(tmp_path):
    KeyStore(tmp_path).change({"M1": {"encryption_key": CANARY, "password": CANARY_PASSWORD.encode()}})
    again = KeyStore(tmp_path)
    assert again.key("M1", "encryption_key") == CANARY
    assert again.key("M1", "password") == CANARY_PASSWORD.encode()
    assert again.key("M1", "authentication_key") is None
    assert again.kinds() == {"M1": ("encryption_key", "password")}
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        assert not shows(file.read_bytes(), CANARY)
        assert not shows(file.read_bytes(), CANARY_PASSWORD.encode())
    assert not shows(repr(again), CANARY)


def test_a_copied_or_changed_entry_opens_nothing(tmp_path):
    store = KeyStore(tmp_path)
    store.change({"M1": {"encryption_key": ENCRYPTION}, "M2": {"encryption_key": CANARY}})
    content = json.loads(store.path.read_text())
    content["keys"]["M1"] = content["keys"]["M2"]
    store.path.write_text(json.dumps(content))
    again = KeyStore(tmp_path)
    assert again.key("M2", "encryption_key") == CANARY
    with pytest.raises(KeyFileError, match="M1 is damaged"):
        again.key("M1", "encryption_key")


def test_another_or_no_machine_secret_is_told(tmp_path):
    KeyStore(tmp_path).change({"M1": {"encryption_key": ENCRYPTION}})
    secret = tmp_path / "machine_secret"
    kept = secret.read_bytes()
    secret.write_bytes(kept[::-1])
    with pytest.raises(KeyFileError, match="another machine secret"):
        KeyStore(tmp_path).unlock()
    secret.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 0600"):
        KeyStore(tmp_path).unlock()
    secret.unlink()
    with pytest.raises(KeyFileError, match="is missing"):
        KeyStore(tmp_path).key("M1", "encryption_key")
    assert not secret.exists()
    # Which kinds there are can be told without it.
    assert KeyStore(tmp_path).kinds() == {"M1": ("encryption_key",)}
    secret.write_bytes(b"too short")
    secret.chmod(0o600)
    with pytest.raises(KeyFileError, match="at least 32"):
        KeyStore(tmp_path).unlock()


def test_a_systemd_credential_goes_before_the_file(tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "concentrator.machine-secret").write_bytes(b"s" * 32)
    environment = {"CREDENTIALS_DIRECTORY": str(folder)}
    by_credential = wrapping_key(tmp_path, may_create=True, environment=environment)
    assert not (tmp_path / "machine_secret").exists()
    by_file = wrapping_key(tmp_path, may_create=True, environment={})
    assert (tmp_path / "machine_secret").exists()
    assert by_credential != by_file
    assert wrapping_key(tmp_path, may_create=False, environment={}) == by_file


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "check": "", "keys": {}}',
        '{"version": 1, "check": "zz", "keys": {}}',
        "é",
    ],
)
def test_a_damaged_store_is_told(tmp_path, content):
    (tmp_path / "key_store.json").write_text(content)
    with pytest.raises(KeyFileError, match=r"key_store\.json"):
        KeyStore(tmp_path)


@given(
    content=st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda c: st.lists(c) | st.dictionaries(st.sampled_from(["version", "check", "keys", "M1"]), c),
    )
)
def test_any_content_is_a_store_or_the_one_error(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / "key_store.json").write_text(json.dumps(content))
    with pytest.raises(KeyFileError):
        KeyStore(folder).key("M1", "encryption_key")


def test_two_writers_lose_nothing(tmp_path):
    first, second = KeyStore(tmp_path), KeyStore(tmp_path)
    first.change({"M1": {"encryption_key": ENCRYPTION}})
    second.change({"M2": {"encryption_key": CANARY}})
    first.change({}, ["M9"])
    assert set(KeyStore(tmp_path).kinds()) == {"M1", "M2"}


def test_the_store_goes_before_the_file_and_everybodys_entry_last(tmp_path):
    file = tmp_path / "keys.json"
    entry = {"encryption_key": ENCRYPTION.hex(), "authentication_key": AUTHENTICATION.hex()}
    file.write_text(json.dumps({"meters": {"M1": entry, "*": entry}, "wmbus": {"12345678": RADIO.hex()}}))
    file.chmod(0o600)
    store = KeyStore(tmp_path)
    store.change(
        {
            "M1": {"encryption_key": CANARY, "authentication_key": AUTHENTICATION},
            "M2": {"encryption_key": CANARY, "password": b"0001"},
            "12345678": {"wmbus_key": CANARY},
        }
    )
    ring = Keyring.load(file, store=store)
    assert ring.meter_keys("", "M1").encryption_key == CANARY
    # A key without its authentication key is none to associate with: the entry for everybody holds.
    assert ring.meter_keys("M2").encryption_key == ENCRYPTION
    assert ring.secret("password", "other", "M2") == b"0001"
    assert ring.secret("master_key", "M2") is None
    assert ring.wmbus_keys() == {"12345678": CANARY}
    assert ring.kinds()["M2"] == ("encryption_key", "password")


IMPORTS = {
    "keys.json": json.dumps(
        {
            "meters": {
                "M1": {"encryption_key": ENCRYPTION.hex(), "authentication_key": AUTHENTICATION.hex()}
            },
            "wmbus": {"els-12345678": RADIO.hex()},
        }
    ),
    "list.json": json.dumps(
        [
            {"meter": "M1", "encryption_key": ENCRYPTION.hex(), "authentication_key": AUTHENTICATION.hex()},
            {"serial": "ELS-12345678", "wmbus_key": RADIO.hex()},
        ]
    ),
    "comma.csv": f"\ufeffSerial,Encryption_Key,authentication_key,wmbus_key,remark\nM1,{ENCRYPTION.hex()},"
    f"{AUTHENTICATION.hex()},,new\n\nELS-12345678,,,{RADIO.hex()},\n",
    "semicolon.csv": f"meter;encryption_key;authentication_key;wmbus_key\r\nM1;{ENCRYPTION.hex().upper()};"
    f"{AUTHENTICATION.hex()};\r\nELS-12345678;;;{RADIO.hex()}\r\n",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_every_form_of_a_list_gives_the_same_keys(tmp_path, name):
    (tmp_path / name).write_text(IMPORTS[name], encoding="utf-8")
    assert read_key_list(tmp_path / name) == {
        "M1": {"encryption_key": ENCRYPTION, "authentication_key": AUTHENTICATION},
        "ELS-12345678": {"wmbus_key": RADIO},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"meter,encryption_key\nM1,{CANARY.hex()}0\n", "line 2: encryption_key of M1: has to be 32 or 64"),
        (f"meter,encryption_key\n,{CANARY.hex()}\n", "line 2: names no meter"),
        (f"encryption_key\n{CANARY.hex()}\n", "line 1: names of columns"),
        (f'{{"meters": {{"M1": "{CANARY.hex()}"}}}}', "an object was expected"),
        (f'{{"M1": "{CANARY.hex()}"}}', "is not known"),
        (
            f'[{{"meter": "M1", "password": "{CANARY.hex() * 3}"}}]',
            "entry 1: password of M1: allowed: 1 to 64",
        ),
        (f'{{"meters": {{"{CANARY.hex()}', "is not JSON"),
    ],
)
def test_a_mistake_is_told_by_place_without_the_key(tmp_path, text, words):
    file = tmp_path / "list"
    file.write_text(text)
    with pytest.raises(KeyFileError) as caught:
        read_key_list(file)
    assert words in str(caught.value)
    assert not shows(str(caught.value), CANARY[:6])


@given(st.text(max_size=200))
def test_any_text_is_a_list_or_the_one_error(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "list"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read_key_list(file)
    except KeyFileError:
        return


def certificate_of(key, path):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "utility")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    return path


def test_the_commands_import_list_hand_on_and_remove_without_showing_a_key(tmp_path, config):
    file = tmp_path / "list.csv"
    file.write_text(
        f"meter,encryption_key,authentication_key,password\nM1,{CANARY.hex()},{AUTHENTICATION.hex()},"
        f"{CANARY_PASSWORD}\nM2,{CANARY.hex()},{AUTHENTICATION.hex()},\n"
    )
    imported = command(config, "keys", "import", file)
    assert imported.exit_code == 0, imported.output
    assert "5 keys of 2 meters" in imported.output
    listed = command(config, "keys", "list", "--json")
    assert json.loads(listed.stdout)["M1"] == ["authentication_key", "encryption_key", "password"]
    private = rsa.generate_private_key(65537, 2048)
    recipient = certificate_of(private, tmp_path / "cert.pem")
    sealed = tmp_path / "sealed.pem"
    exported = command(config, "keys", "export", "--recipient", recipient, "--output", sealed)
    assert exported.exit_code == 0, exported.output
    removed = command(config, "keys", "remove", "M2")
    assert command(config, "keys", "remove", "M2").exit_code == 2
    outputs = [one.output for one in (imported, listed, exported, removed)]
    outputs += [one.read_bytes() for one in (sealed, *(tmp_path / "state").iterdir())]
    for text in outputs:
        assert not shows(text, CANARY)
        assert not shows(text, CANARY_PASSWORD.encode())
    (tmp_path / "private.pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    # A foreign program opens it, and what is inside can be imported on another box.
    opened = subprocess.run(
        ["openssl", "cms", "-decrypt", "-inform", "PEM", "-in", sealed, "-inkey", tmp_path / "private.pem"],
        capture_output=True,
        check=True,
    ).stdout
    (tmp_path / "opened.json").write_bytes(opened)
    assert read_key_list(tmp_path / "opened.json")["M1"] == {
        "encryption_key": CANARY,
        "authentication_key": AUTHENTICATION,
        "password": CANARY_PASSWORD.encode(),
    }


def test_keys_are_handed_on_to_rsa_certificates_only(tmp_path, config):
    recipient = certificate_of(ec.generate_private_key(ec.SECP256R1()), tmp_path / "cert.pem")
    refused = command(config, "keys", "export", "--recipient", recipient, "--output", tmp_path / "out")
    assert (refused.exit_code, (tmp_path / "out").exists()) == (2, False)
    assert "RSA" in refused.output
    recipient.write_text("no certificate")
    assert (
        "no certificate"
        in command(config, "keys", "export", "--recipient", recipient, "--output", tmp_path / "out").output
    )
