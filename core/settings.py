"""Every setting, read from `config.toml`, the environment and `.env`, and checked as a whole.

`load_settings` returns one frozen value or raises one ConfigError that lists every fault with its
file and key. Nothing is read at import.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError
from core.processors import available_cores
from core.sections import (
    ApiSettings,
    CanarySettings,
    ChatSettings,
    ConsoleSettings,
    DiscordSettings,
    GateSettings,
    LauncherSettings,
    ModelSettings,
    PrivacySettings,
    ReplicaSettings,
    ScheduleSettings,
    ServingSettings,
    StorageSettings,
    TrainingSettings,
)

DEFAULT_CONFIG = "config.toml"
DEFAULT_DATA_DIR = "var"


class Settings(BaseModel):
    """All sections, checked together, with where they came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelSettings = ModelSettings()
    chat: ChatSettings = ChatSettings()
    serving: ServingSettings = ServingSettings()
    replicas: ReplicaSettings = ReplicaSettings()
    storage: StorageSettings = StorageSettings()
    privacy: PrivacySettings = PrivacySettings()
    training: TrainingSettings = TrainingSettings()
    launcher: LauncherSettings = LauncherSettings()
    gate: GateSettings = GateSettings()
    canary: CanarySettings = CanarySettings()
    schedule: ScheduleSettings = ScheduleSettings()
    discord: DiscordSettings = DiscordSettings()
    console: ConsoleSettings = ConsoleSettings()
    api: ApiSettings = ApiSettings()
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    config_file: Path | None = None
    ssh_config: Path | None = None
    db_key: SecretStr | None = None
    discord_token: SecretStr | None = None
    console_password: SecretStr | None = None
    remote_key: SecretStr | None = None

    @property
    def database_path(self) -> Path:
        """Where the database lies."""
        return self.data_dir / self.storage.file

    @property
    def serving_threads(self) -> int:
        """CPU threads of the model while no run goes on."""
        return self.serving.threads or available_cores()

    @property
    def replica_threads(self) -> int:
        """CPU threads of each replica: as said, else one beside a GPU, else a fair share of as many
        cores as this machine has.
        """
        fair = 1 if self.replicas.gpus else available_cores() // self.replicas.max
        return self.serving.threads or max(1, fair)

    @property
    def training_threads(self) -> int:
        """CPU threads of a training run."""
        return self.training.threads or max(1, available_cores() // 2)

    @property
    def runs_here(self) -> bool:
        """Whether training runs take cores of this machine, and end with the process."""
        return self.launcher.kind == "local"

    @property
    def serving_threads_while_training(self) -> int:
        """CPU threads left to the model while a run goes on: two pools on one core run 20 times
        slower. A run elsewhere takes none.
        """
        if not self.runs_here:
            return self.serving_threads
        return max(1, min(self.serving_threads, available_cores() - self.training_threads))


class _Environment(BaseSettings):
    """What comes from the environment or `.env`: secrets, and where the world lies."""

    model_config = SettingsConfigDict(
        env_prefix="THUMBTUNE_", extra="ignore", env_ignore_empty=True
    )

    config: Path | None = None
    data_dir: Path | None = None
    ssh_config: Path | None = None
    db_key: SecretStr | None = None
    console_password: SecretStr | None = None
    remote_key: SecretStr | None = None
    discord_token: Annotated[
        SecretStr | None,
        Field(validation_alias=AliasChoices("DISCORD_TOKEN", "THUMBTUNE_DISCORD_TOKEN")),
    ] = None


def load_settings(config: Path | None = None, data_dir: Path | None = None) -> Settings:
    """Read the settings; an argument goes before the environment, the environment before the
    default.

    `config` None looks for THUMBTUNE_CONFIG, then `config.toml` here, and does without where there
    is none; a named file must exist. `data_dir` defaults to `var` beside the configuration file.
    Raises ConfigError with every fault found.
    """
    environment = _Environment(_env_file=".env")
    named = config or environment.config
    path = named or Path(DEFAULT_CONFIG)
    table = _read_toml(path) if named or path.exists() else {}
    home = data_dir or environment.data_dir or path.parent / DEFAULT_DATA_DIR
    problems = [f"{path}: {fault}" for fault in _reserved_keys(table)]
    values = {key: value for key, value in table.items() if key not in _RESERVED}
    try:
        settings = Settings.model_validate(
            {
                **values,
                "data_dir": home.expanduser(),
                "config_file": path if path.exists() else None,
            }
        )
    except ValidationError as error:
        raise ConfigError(
            problems + [f"{path}: {_sentence(fault, path)}" for fault in error.errors()]
        ) from None
    problems += [f"{path}: {fault}" for fault in _contradictions(settings)]
    if problems:
        raise ConfigError(problems)
    return settings.model_copy(
        update={
            "ssh_config": environment.ssh_config and environment.ssh_config.expanduser(),
            "db_key": environment.db_key,
            "discord_token": environment.discord_token,
            "console_password": environment.console_password,
            "remote_key": environment.remote_key,
        }
    )


_RESERVED = {
    "data_dir": "use --data-dir or THUMBTUNE_DATA_DIR",
    "config_file": "use --config or THUMBTUNE_CONFIG",
    "ssh_config": "set THUMBTUNE_SSH_CONFIG",
    "db_key": "set THUMBTUNE_DB_KEY",
    "discord_token": "set DISCORD_TOKEN",
    "console_password": "set THUMBTUNE_CONSOLE_PASSWORD, or run: thumbtune console-password",
    "remote_key": "set THUMBTUNE_REMOTE_KEY",
}
"""Names in Settings that are no keys of the file, and where they are given instead."""


def _reserved_keys(table: dict[str, Any]) -> list[str]:
    return [
        f"{key}: does not belong in this file; {_RESERVED[key]}"
        for key in sorted(_RESERVED.keys() & table.keys())
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: no such file; name an existing one or leave --config out"]
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not valid TOML: {error}"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None


def _sentence(fault: Any, path: Path) -> str:
    """One validation fault as `key: what is wrong and what was expected`."""
    where = [str(part) for part in fault["loc"]]
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        return f"{key}: no such key{_did_you_mean(where)}"
    message = fault["msg"].removeprefix("Value error, ")
    value = fault["input"]
    shown = "" if isinstance(value, dict) else f" (found {value!r})"
    return f"{key}: {message[0].lower()}{message[1:]}{shown}"


def _did_you_mean(where: list[str]) -> str:
    import difflib

    fields: Any = Settings.model_fields
    for part in where[:-1]:
        fields = fields[part].annotation.model_fields
    known = [name for name in fields if name not in _RESERVED]
    close = difflib.get_close_matches(where[-1], known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


def _contradictions(settings: Settings) -> list[str]:
    """Faults that lie between keys, each of which is fine alone."""
    faults = []
    if settings.chat.max_tokens >= settings.serving.max_context_tokens:
        faults.append(
            f"chat.max_tokens ({settings.chat.max_tokens}) must be below "
            f"serving.max_context_tokens ({settings.serving.max_context_tokens}), "
            "which holds the prompt too"
        )
    faults += _backend_faults(settings.serving)
    if settings.serving.backend == "ray":
        faults += _replica_faults(settings)
    faults += _launcher_faults(settings.launcher)
    scheduled = settings.schedule.cron or settings.schedule.min_votes
    if scheduled and not settings.training.enabled:
        faults.append("schedule is set but training.enabled is false; clear one of them")
    if settings.training.load_in_4bit and not settings.model.device.startswith(("auto", "cuda")):
        faults.append(
            f"training.load_in_4bit needs CUDA, but model.device is {settings.model.device!r}"
        )
    return faults


def _backend_faults(serving: ServingSettings) -> list[str]:
    faults = []
    ports = {"remote": 8700, "vllm": 8000}
    if serving.backend in ports and not serving.remote_url:
        faults.append(
            f'serving.backend is "{serving.backend}" but serving.remote_url is empty; write, for '
            f'example, "http://gpu-host:{ports[serving.backend]}/v1"'
        )
    if serving.vllm_adapters_there and not serving.vllm_adapters:
        faults.append(
            "serving.vllm_adapters_there is set but serving.vllm_adapters is empty; the first is "
            "what the second is called on vLLM's machine"
        )
    return faults


def _replica_faults(settings: Settings) -> list[str]:
    ours, serving, device = settings.replicas, settings.serving, settings.model.device
    faults = []
    if ours.min > ours.max:
        faults.append(f"replicas.min ({ours.min}) is above replicas.max ({ours.max})")
    if ours.target_replies > serving.max_batch:
        faults.append(
            f"replicas.target_replies ({ours.target_replies:g}) is above serving.max_batch "
            f"({serving.max_batch}): replies would wait while replicas may still be added"
        )
    if ours.gpus and device not in ("auto", "cuda"):
        faults.append(
            f'replicas.gpus is {ours.gpus:g} but model.device is {device!r}; write "auto" or '
            '"cuda": which GPU a replica sees is decided by Ray'
        )
    if not ours.gpus and device.startswith("cuda"):
        faults.append(
            f"model.device is {device!r} but replicas.gpus is 0, so no replica would see a GPU; "
            "set replicas.gpus to the GPUs of each"
        )
    threads = ours.max * settings.replica_threads
    if not (ours.address or ours.gpus) and threads > available_cores():
        faults.append(
            f"replicas.max ({ours.max}) times {settings.replica_threads} threads each "
            f"(serving.threads) is more than this machine's {available_cores()} cores"
        )
    return faults


def _launcher_faults(launcher: LauncherSettings) -> list[str]:
    needed = {"ssh": ("ssh_host", "gpu-box"), "ray": ("ray_address", "head-node:6379")}
    key, example = needed.get(launcher.kind, ("", ""))
    if key and not getattr(launcher, key):
        return [
            f'launcher.kind is "{launcher.kind}" but launcher.{key} is empty; '
            f'write, for example, "{example}"'
        ]
    return []
