import copy
import json
import multiprocessing
import os
import pickle
import stat

import msgspec
import pytest

from handiwork.egress.secrets import Opener, SecretValue
from handiwork.model.errors import ConfigError, SecretMissingError
from handiwork.model.sealing import ENTROPY_BYTES, seal
from handiwork.model.secret import SealedSecret

VALUE = "sk-the-real-secret-value"


@pytest.fixture
def opener(tmp_path):
    return Opener(tmp_path / "keys")


def _seal(opener, **changes):
    facts = {"tenant": "default", "name": "k", "version": 1, "hosts": ("a.test",), "value": VALUE}
    facts |= changes
    public = opener.public_key(facts["tenant"])
    return seal(public, **facts, entropy=os.urandom(ENTROPY_BYTES))


def test_what_was_sealed_opens(opener):
    assert opener.open(_seal(opener)).reveal() == VALUE


def test_a_sealed_secret_survives_its_way_through_json(opener):
    sealed = msgspec.json.decode(msgspec.json.encode(_seal(opener)), type=SealedSecret)
    assert opener.open(sealed).reveal() == VALUE


def test_a_second_start_opens_it_too(opener, tmp_path):
    sealed = _seal(opener)
    again = Opener(tmp_path / "keys")
    assert again.open(sealed).reveal() == VALUE
    assert again.public_key("default") == opener.public_key("default")
    assert again.ca_root() == opener.ca_root()


def test_other_tenants_and_other_homes_have_other_keys(opener, tmp_path):
    other = Opener(tmp_path / "other")
    assert opener.public_key("acme") != opener.public_key("default")
    assert other.public_key("default") != opener.public_key("default")
    assert other.ca_root() != opener.ca_root()
    with pytest.raises(SecretMissingError):
        other.open(_seal(opener))


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "acme"},
        {"name": "other"},
        {"version": 2},
        {"hosts": ("evil.test",)},
        {"hosts": ("a.test", "evil.test")},
        {"hosts": ()},
        {"nonce": bytes(12)},
        {"nonce": b""},
        {"ephemeral_key": bytes(32)},
        {"ephemeral_key": b"short"},
        {"ciphertext": bytes(64)},
        {"ciphertext": b""},
    ],
)
def test_any_change_fails_closed(opener, change):
    opener.public_key("acme")
    changed = msgspec.structs.replace(_seal(opener), **change)
    with pytest.raises(SecretMissingError, match="does not open") as caught:
        opener.open(changed)
    assert VALUE not in str(caught.value)


def test_opening_for_an_unknown_tenant_makes_no_key(opener, tmp_path):
    sealed = msgspec.structs.replace(_seal(opener), tenant="nobody")
    with pytest.raises(SecretMissingError, match="there is no key"):
        opener.open(sealed)
    assert [path.name for path in (tmp_path / "keys" / "tenants").iterdir()] == ["default.key"]


@pytest.mark.parametrize("tenant", ["../evil", "..", "", "A", "a/b"])
def test_a_tenant_cannot_be_a_path(opener, tenant):
    with pytest.raises(ConfigError):
        opener.public_key(tenant)


def test_the_ciphertext_does_not_hold_the_value_and_is_new_each_time(opener):
    one, two = _seal(opener), _seal(opener)
    assert VALUE.encode() not in one.ciphertext
    assert (one.ciphertext, one.nonce) != (two.ciphertext, two.nonce)


def test_keys_are_private_files_and_not_in_clear(opener, tmp_path):
    opener.public_key("default")
    root = opener.ca_root()
    home = tmp_path / "keys"
    for path in [home, *home.rglob("*")]:
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) == (0o700 if path.is_dir() else 0o600), path
    assert root not in (home / "ca-root").read_bytes()
    names = {path.name for path in home.rglob("*")}
    assert names == {"kek", "ca-root", "tenants", "default.key"}


@pytest.mark.parametrize("name", ["", "kek", "tenants"])
def test_a_directory_or_file_that_others_may_read_is_refused(opener, tmp_path, name):
    path = tmp_path / "keys" / name
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="must be a"):
        Opener(tmp_path / "keys")


def test_a_linked_or_cut_key_is_refused(opener, tmp_path):
    kek = tmp_path / "keys" / "kek"
    kek.rename(tmp_path / "elsewhere")
    kek.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Opener(tmp_path / "keys")
    kek.unlink()
    kek.touch(0o600)
    with pytest.raises(ConfigError, match="cut short"):
        Opener(tmp_path / "keys")


def test_another_wrapping_key_is_told(opener, tmp_path):
    opener.public_key("default")
    (tmp_path / "keys" / "kek").unlink()
    with pytest.raises(ConfigError, match="not wrapped by the key"):
        Opener(tmp_path / "keys").public_key("default")


def test_swapped_files_do_not_open_as_each_other(opener, tmp_path):
    home = tmp_path / "keys"
    opener.public_key("default")
    opener.ca_root()
    (home / "tenants" / "default.key").replace(home / "tenants" / "acme.key")
    with pytest.raises(ConfigError, match="not wrapped"):
        Opener(home).public_key("acme")


def _facts_of_a_start(home, gate, answers):
    gate.wait()
    opener = Opener(home)
    answers.put((opener.public_key("default"), opener.ca_root()))


def test_processes_that_start_at_once_agree_on_the_keys(tmp_path):
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    started = [
        context.Process(target=_facts_of_a_start, args=(tmp_path / "keys", gate, answers))
        for _ in range(4)
    ]
    try:
        for process in started:
            process.start()
        assert len({answers.get(timeout=20) for _ in started}) == 1
    finally:
        for process in started:
            process.join(10)
    assert not list((tmp_path / "keys").rglob(".*"))


def test_a_value_shows_itself_to_nobody():
    value = SecretValue(VALUE)
    for text in (repr(value), str(value), f"{value}", f"{value:>40}", repr([value])):
        assert VALUE not in text
    for copying in (pickle.dumps, copy.copy, copy.deepcopy, msgspec.json.encode, json.dumps):
        with pytest.raises(TypeError) as caught:
            copying(value)
        assert VALUE not in str(caught.value)
    assert not hasattr(value, "__dict__")


def test_sabotage_a_plain_string_would_show_itself():
    assert VALUE in repr([VALUE])
