from pathlib import Path

import pytest

from handiwork import config
from handiwork.model.errors import ConfigError


def load(text: str, tmp_path: Path, **variables: str) -> config.Settings:
    path = tmp_path / "handiwork.toml"
    path.write_text(text)
    return config.load(path, variables)


def test_defaults_are_loopback_and_deny() -> None:
    settings = config.load(None, {})
    assert settings.api.host == settings.local_brain.host == "127.0.0.1"
    assert settings.egress.policy == settings.sandbox.policy == ""


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    settings = load("[api]\nport = 1\n", tmp_path, HANDIWORK_API_PORT="9000")
    assert settings.api.port == 9000


def test_timeouts_by_tool(tmp_path: Path) -> None:
    text = "[tools.timeout_seconds]\nbash = 600\nsearch_tickets = 2.5\n"
    settings = load(text, tmp_path, HANDIWORK_TOOLS_DEFAULT_TIMEOUT_SECONDS="30").tools
    assert settings.timeout_seconds == {"bash": 600.0, "search_tickets": 2.5}
    assert settings.default_timeout_seconds == 30


def test_a_top_level_variable(tmp_path: Path) -> None:
    assert load("", tmp_path, HANDIWORK_DATA_DIR="/x").data_dir == "/x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[api]\nprot = 1\n", "prot"),
        ("nonsense = 1\n", "nonsense"),
        ("[sandbox]\ntier = 'docker'\n", "namespace, gvisor"),
        ("[sandbox]\nminimum_tier = 'docker'\n", "minimum_tier = 'docker' is no tier"),
        ("[sandbox.pool]\nready = -1\n", r"sandbox.pool: ready = \[-1\]"),
        ("[sandbox.pool]\nready = 257\n", "256 all together"),
        ("[[sandbox.pool.more]]\nready = 255\n", "256 all together"),
        ("[[sandbox.pool.more]]\ntier = 'docker'\n", "more 1: tier = 'docker' has no pool"),
        ("[sandbox.isolate]\nmemory_mib = 8\n", "sandbox.isolate.memory_mib = 8; use 16 to 4096"),
        ("[sandbox.isolate]\nuser_id = 0\n", "sandbox.isolate.user_id = 0; use an id"),
        ("[[sandbox.pool.more]]\nsize = 'huge'\n", "more 1: size: 'huge' is none"),
        ("[sandbox]\nminimum_tier = 'gvisor'\n", "sandbox.tier = 'namespace' is weaker than"),
        ("[api\n", "not valid TOML"),
        ("[api]\nport = 70000\n", "70000"),
        ("[log]\nlevel = 'loud'\n", "loud"),
        ("[sessions]\ntool_timeout_seconds = 5\n", "tool_timeout_seconds"),
        ("[sessions]\nask_seconds = -1\n", "sessions.ask_seconds = -1"),
        ("[sandbox]\nfreeze_seconds = -1\n", "sandbox.freeze_seconds = -1"),
        ("[sandbox]\nwoken_seconds = -1\n", "sandbox.woken_seconds = -1"),
        (
            "[sandbox]\nfreeze_seconds = 60\nfreeze_min_free_memory_mib = 9\n",
            "sandbox.freeze_min_free_memory_mib = 9 is below",
        ),
        ("[tools]\nlongest_timeout_seconds = 0\n", "tools.longest_timeout_seconds = 0"),
        ("[tools.timeout_seconds]\nbash = -1\n", "tools.timeout_seconds.bash = -1"),
        ("[tools]\nspool_mib = 0\n", "tools.spool_mib = 0; use 1-4096"),
        ("[tools.timeout_seconds]\nbash = nan\n", "tools.timeout_seconds.bash = nan"),
        (
            "[[environments]]\nid = 'env_1'\nbase_url = 'http://a'\n"
            "[[environments]]\nid = 'env_1'\nbase_url = 'http://b'\n",
            "environments has 'env_1' twice",
        ),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(text, tmp_path)
    assert "handiwork.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("keep = 0", "snapshots.keep"),
        ("keep = 1001", "snapshots.keep"),
        ("grace_seconds = -1", "snapshots.grace_seconds"),
        ("closed_seconds = -1", "snapshots.closed_seconds"),
        ("sweep_seconds = 0", "snapshots.sweep_seconds"),
        ('s3 = {bucket = "b"}', "needs access_key_id and secret_key_file"),
        ('s3 = {bucket = "b", access_key_id = "k"}', "needs access_key_id and secret_key_file"),
        ("s3 = {timeout_seconds = 0}", "s3.timeout_seconds"),
    ],
)
def test_snapshots_that_cannot_be_are_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        load(f"[snapshots]\n{text}", tmp_path)


@pytest.mark.parametrize(
    ("name", "said"), [("HANDIWORK_NOPE_X", "NOPE_X"), ("HANDIWORK_API_PROT", "prot")]
)
def test_an_unknown_variable_is_an_error(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config.load(None, {name: "1"})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.toml", {})


def test_where_data_lives(tmp_path: Path) -> None:
    settings = config.load(None, {})
    assert config.data_dir(settings, is_root=True, home=tmp_path) == Path("/var/lib/handiwork")
    assert tmp_path in config.data_dir(settings, is_root=False, home=tmp_path).parents


def test_a_providers_key_is_its_own_variable() -> None:
    variables = {"OPENAI_API_KEY": " sk-1\n", "ANTHROPIC_API_KEY": "sk-2"}
    found = [config.provider_key(kind, variables) for kind in ("openai", "anthropic", "other")]
    assert found == ["sk-1", "sk-2", ""]


@pytest.mark.parametrize(
    "text",
    ["call_seconds = 0.01", "call_seconds = 61", "memory_mib = 64", 'directory = "relative"'],
)
def test_hooks_have_bounds(tmp_path: Path, text: str) -> None:
    (tmp_path / "handiwork.toml").write_text(f"[hooks]\n{text}\n")
    with pytest.raises(ConfigError, match="hooks"):
        config.load(tmp_path / "handiwork.toml", {})
