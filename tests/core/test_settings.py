"""Settings: every key documented, every fault reported at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.settings import _RESERVED, Settings, load_settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("THUMBTUNE_CONFIG", "THUMBTUNE_DATA_DIR", "THUMBTUNE_DB_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_file_holds_every_key_with_its_default() -> None:
    """config.toml and the code agree on every key and every default."""
    table = tomllib.loads((ROOT / "config.toml").read_text(encoding="utf-8"))
    defaults = Settings().model_dump(exclude={*_RESERVED}, mode="json")
    assert table == defaults


def test_every_key_of_the_shipped_file_says_why() -> None:
    """Each line with a key carries a comment."""
    lines = (ROOT / "config.toml").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "=" in line.split("#")[0] and "#" not in line] == []


def test_without_a_file_every_default_holds() -> None:
    """A missing config.toml is fine as long as nobody named it."""
    assert load_settings().chat.max_tokens == 192


def test_sshs_own_configuration_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment alone; a tilde is the user's home."""
    assert load_settings().ssh_config is None
    monkeypatch.setenv("THUMBTUNE_SSH_CONFIG", "~/ssh/bot")
    assert load_settings().ssh_config == Path("~/ssh/bot").expanduser()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A named file that is not there is an error, not a silent default."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load_settings(tmp_path / "nowhere.toml")


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    """Unknown keys, wrong types and out-of-range values come in one error, with file and key."""
    path = write(
        tmp_path,
        "tpyo = 1\n[chat]\ntemprature = 1\ntop_p = 2.0\n"
        '[serving]\nthreads = "two"\n[schedule]\ncron = "* *"\n',
    )
    with pytest.raises(ConfigError) as error:
        load_settings(path)
    text = str(error.value)
    assert len(error.value.problems) == 5
    assert text.count("settings.toml") == 5
    assert "chat.temprature: no such key; did you mean 'temperature'?" in text
    assert "serving.threads: input should be a valid integer (found 'two')" in text


_RAY = '[serving]\nbackend = "ray"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serving]\nmax_context_tokens = 100\n", "chat.max_tokens (192) must be below"),
        (
            "[schedule]\nmin_votes = 5\n[training]\nenabled = false\n",
            "schedule is set but training.enabled",
        ),
        ('[model]\ndevice = "cpu"\n[training]\nload_in_4bit = true\n', "needs CUDA"),
        ('[training]\nsharding = "fsdp"\n', "needs gpus = 2 or more"),
        ('[training]\nsharding = "fsdp"\ngpus = 2\nload_in_4bit = true\n', "exclude each other"),
        ('[model]\nrevision = "main"\n', "has no meaning for source 'bundled'"),
        ('[serving]\nbackend = "remote"\n', "serving.remote_url is empty"),
        ('[serving]\nbackend = "vllm"\n', '"http://gpu-host:8000/v1"'),
        ('[serving]\nvllm_adapters_there = "/mnt/x"\n', "serving.vllm_adapters is empty"),
        ('[serving]\nremote_url = "gpu-host"\n', "serving.remote_url"),
        ('[replicas]\naddress = "ray://head:10001"\n', "replicas.address"),
        ("[replicas]\ngpus = 1.5\n", "a part of one GPU, or whole ones"),
        (f"{_RAY}[replicas]\nmin = 3\n", "replicas.min (3) is above replicas.max (2)"),
        (f"{_RAY}[replicas]\ntarget_replies = 17.0\n", "is above serving.max_batch (16)"),
        (f'{_RAY}[replicas]\ngpus = 1.0\n[model]\ndevice = "cpu"\n', "is decided by Ray"),
        (f'{_RAY}[model]\ndevice = "cuda"\n', "replicas.gpus is 0"),
        (f"{_RAY}threads = 500\n", "replicas.max (2) times 500 threads each"),
        ('db_key = "x"\n', "set THUMBTUNE_DB_KEY"),
        ("[chat\n", "not valid TOML"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, text: str, said: str) -> None:
    """Values that cannot hold together are refused with both named."""
    with pytest.raises(ConfigError) as error:
        load_settings(write(tmp_path, text))
    assert said in str(error.value)


def test_secrets_come_from_the_environment_and_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database key is read from the environment and hidden in every representation."""
    monkeypatch.setenv("THUMBTUNE_DB_KEY", "hush")
    settings = load_settings()
    assert settings.db_key is not None
    assert settings.db_key.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


def test_dot_env_is_read(tmp_path: Path) -> None:
    """A .env beside the working directory serves as environment."""
    (tmp_path / ".env").write_text("THUMBTUNE_DB_KEY=from-file\nOTHER=1\n", encoding="utf-8")
    key = load_settings().db_key
    assert key is not None
    assert key.get_secret_value() == "from-file"


def test_an_argument_goes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--data-dir wins over THUMBTUNE_DATA_DIR, which wins over the default."""
    monkeypatch.setenv("THUMBTUNE_DATA_DIR", str(tmp_path / "env"))
    assert load_settings().data_dir == tmp_path / "env"
    assert load_settings(data_dir=tmp_path / "arg").data_dir == tmp_path / "arg"


def test_an_address_without_its_scheme_is_refused_in_plain_words(tmp_path: Path) -> None:
    """`discord.com` alone is no address; the message says how one begins."""
    path = write(tmp_path, '[discord]\napi_url = "discord.com"\ngateway_url = "https://x"\n')
    with pytest.raises(ConfigError) as error:
        load_settings(path)
    assert "discord.api_url: expected an address that begins with https:// or http://" in str(
        error.value
    )
    assert "discord.gateway_url: expected an address that begins with wss:// or ws://" in str(
        error.value
    )


@pytest.mark.parametrize("url", ["bot.example.org", "https://bot.example.org/path", "ftp://x"])
def test_the_consoles_public_address_is_an_origin(tmp_path: Path, url: str) -> None:
    """No path, and a scheme that browsers speak; a password never stands in the file."""
    text = f'console_password = "x"\n[console]\npublic_url = "{url}"\n'
    with pytest.raises(ConfigError, match=r"without a path") as caught:
        load_settings(write(tmp_path, text))
    assert any("thumbtune console-password" in fault for fault in caught.value.problems)


def test_the_consoles_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a secret: shown nowhere."""
    monkeypatch.setenv("THUMBTUNE_CONSOLE_PASSWORD", "four words make one")
    settings = load_settings()
    assert settings.console_password is not None
    assert settings.console_password.get_secret_value() == "four words make one"
    assert "four words" not in repr(settings)


def test_an_api_address_with_a_path_in_it_is_refused(tmp_path: Path) -> None:
    """A host is a name or an address."""
    with pytest.raises(ConfigError) as error:
        load_settings(write(tmp_path, '[api]\nhost = "http://x/"\nport = 70000\n'))
    assert "api.host: " in str(error.value) and "api.port: " in str(error.value)


def test_a_group_is_one_of_the_groups(tmp_path: Path) -> None:
    """They are counted from 0."""
    with pytest.raises(ConfigError, match="discord: group is 2 but there are 2 groups, counted"):
        load_settings(write(tmp_path, "[discord]\ngroup = 2\ngroups = 2\n"))


def test_shards_are_a_multiple_of_the_groups(tmp_path: Path) -> None:
    """So that a server's group never depends on how many shards there are."""
    with pytest.raises(ConfigError, match="discord: shards is 5, which 2 groups cannot share"):
        load_settings(write(tmp_path, "[discord]\nshards = 5\ngroups = 2\n"))
    share = load_settings(write(tmp_path, "[discord]\ngroup = 1\ngroups = 2\n")).discord.share(5)
    assert share.ids == (1, 3, 5)
