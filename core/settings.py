"""Every setting, read from `config.toml`, the environment and `.env`, and checked as a whole.

`load_settings` returns one frozen value or raises one ConfigError that lists every fault with its
file and key. Nothing is read at import.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.canary import CanaryRules
from core.errors import ConfigError

DEFAULT_CONFIG = "config.toml"
DEFAULT_DATA_DIR = "var"

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
DiscordId = Annotated[int, Field(gt=0, lt=1 << 63)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelSettings(_Section):
    """Which base model, in which precision, on which device."""

    source: str = "bundled"
    revision: str = ""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"

    @field_validator("source")
    @classmethod
    def _not_empty(cls, source: str) -> str:
        if not source.strip():
            raise ValueError('is empty; write "bundled", a directory or a hub id')
        return source

    @model_validator(mode="after")
    def _revision_needs_hub(self) -> ModelSettings:
        if self.revision and (self.source == "bundled" or Path(self.source).expanduser().is_dir()):
            raise ValueError(
                f"revision {self.revision!r} has no meaning for source {self.source!r}; clear it"
            )
        return self


class ChatSettings(_Section):
    """How replies are written unless a scope says otherwise."""

    persona: str = ""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Share = 0.95
    top_k: Annotated[int, Field(ge=0)] = 0
    max_tokens: Positive = 192
    max_message_chars: Positive = 2000
    history_messages: Positive = 20


class ServingSettings(_Section):
    """Where the engine is, and its bounds."""

    backend: Literal["local", "remote"] = "local"
    remote_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+(/\S*)?)?$")] = ""
    threads: Annotated[int, Field(ge=0)] = 0
    decoder: Literal["auto", "compiled", "generic"] = "auto"
    quantization: Literal["auto", "int8", "none"] = "auto"
    max_batch: Positive = 16
    max_queue: Annotated[int, Field(ge=0)] = 64
    max_context_tokens: Annotated[int, Field(ge=64)] = 2048
    deadline_s: Annotated[float, Field(gt=0)] = 120.0
    max_adapters: Annotated[int, Field(ge=2)] = 8


class StorageSettings(_Section):
    """Where and how rows are kept."""

    file: Annotated[str, Field(pattern=r"^[^/\\]+$")] = "thumbtune.db"
    busy_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    keep_backups: Positive = 5


class PrivacySettings(_Section):
    """What is kept of people, and how much one of them may weigh."""

    retention_days: Annotated[int, Field(ge=0)] = 365
    person_share: Share = 0.25


class TrainingSettings(_Section):
    """What a training run does."""

    enabled: bool = True
    recipe: Literal["auto", "bon", "sft", "kto", "apo", "dpo"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    nice: Annotated[int, Field(ge=0, le=19)] = 10
    timeout_minutes: Annotated[float, Field(gt=0)] = 240.0
    held_out_share: Annotated[float, Field(ge=0.05, le=0.5)] = 0.25
    min_examples: Positive = 20
    lora_rank: Annotated[int, Field(ge=1, le=512)] = 16
    lora_alpha: Positive = 32
    learning_rate: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    epochs: Annotated[float, Field(ge=0, le=100)] = 0.0
    batch_size: Annotated[int, Field(ge=0)] = 0
    max_length: Annotated[int, Field(ge=64)] = 1024
    seed: int = 0
    load_in_4bit: bool = False
    report_to: str = "none"

    @field_validator("batch_size")
    @classmethod
    def _two_or_more(cls, size: int) -> int:
        if size == 1:
            raise ValueError("expected 2 or more, or 0 for the recipe's own")
        return size


class GateSettings(_Section):
    """The bounds a candidate must keep."""

    min_people: Positive = 3
    min_held_out: Positive = 16
    min_each_side: Positive = 4
    max_p_value: Annotated[float, Field(gt=0, le=1)] = 0.01
    min_accuracy: Annotated[float, Field(ge=0, lt=1)] = 0.6
    min_gain: float = 0.0
    max_keep_drop: Annotated[float, Field(ge=0, le=1)] = 0.15
    max_perplexity_ratio: Annotated[float, Field(ge=1)] = 1.25
    max_kl: Annotated[float, Field(gt=0)] = 1.5
    max_length_ratio: Annotated[float, Field(ge=1)] = 3.0
    max_repetition_rise: Annotated[float, Field(ge=0, le=1)] = 0.10
    max_empty: Annotated[float, Field(ge=0, le=1)] = 0.02


class CanarySettings(_Section):
    """How a version that the gate accepted is tried on some conversations before it speaks in all.

    `share` 0 is off: an accepted version speaks at once.
    """

    share: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    min_gain: Annotated[float, Field(ge=0.02, le=0.5)] = 0.1
    wrong_promotion: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    wrong_rollback: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    person_votes: Positive = 20
    max_votes: Positive = 400
    max_days: Annotated[float, Field(gt=0)] = 14.0

    def rules(self, share: float) -> CanaryRules:
        """Return the rules of a trial that was begun with this share."""
        return CanaryRules(
            share=share,
            min_gain=self.min_gain,
            wrong_promotion=self.wrong_promotion,
            wrong_rollback=self.wrong_rollback,
            person_votes=self.person_votes,
        )


class ScheduleSettings(_Section):
    """When training starts by itself."""

    cron: str = ""
    min_votes: Annotated[int, Field(ge=0)] = 0
    min_people: Positive = 3
    check_minutes: Annotated[float, Field(gt=0)] = 5.0
    misfire_grace_hours: Annotated[float, Field(gt=0)] = 24.0

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        if cron and len(cron.split()) != 5:
            raise ValueError(
                'expected five fields, "minute hour day month weekday", for example "0 4 * * *"'
            )
        return cron


class DiscordSettings(_Section):
    """How the bot behaves on Discord, for every server. What a server may change itself is kept
    with the server (`/settings`).
    """

    api_url: str = "https://discord.com/api/v10"
    gateway_url: str = "wss://gateway.discord.gg/"
    scopes: Literal["server", "shared"] = "server"
    training_permission: str = ""
    owners: tuple[DiscordId, ...] = ()
    blocked: tuple[DiscordId, ...] = ()
    person_per_minute: Positive = 8
    channel_per_minute: Positive = 60
    reconcile_days: Annotated[float, Field(ge=0)] = 7.0
    remembered_replies: Positive = 2000

    @field_validator("api_url", "gateway_url")
    @classmethod
    def _an_address(cls, url: str, info: ValidationInfo) -> str:
        schemes = ("https", "http") if info.field_name == "api_url" else ("wss", "ws")
        if not re.fullmatch(rf"({'|'.join(schemes)})://[^/\s]+(/\S*)?", url):
            raise ValueError(
                f"expected an address that begins with {schemes[0]}:// or {schemes[1]}://"
            )
        return url

    @field_validator("owners", "blocked", mode="before")
    @classmethod
    def _list(cls, ids: object) -> object:
        return tuple(ids) if isinstance(ids, list) else ids  # TOML has lists, a frozen value none


class ConsoleSettings(_Section):
    """The web console: where it listens, and the address a proxy serves it under, if one does."""

    enabled: bool = True
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    public_url: str = ""

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:_-]+/?", url):
            raise ValueError("expected an address without a path, such as https://bot.example.org")
        return url.rstrip("/").lower()


class ApiSettings(_Section):
    """Where the HTTP API listens, and how much of a request it takes."""

    host: Annotated[str, Field(pattern=r"^[0-9A-Za-z.:_-]+$")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_000_000
    max_adapter_bytes: Annotated[int, Field(ge=1024)] = 500_000_000
    time_limit_s: Annotated[float, Field(gt=0)] = 300.0


class Settings(BaseModel):
    """All sections, checked together, with where they came from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelSettings = ModelSettings()
    chat: ChatSettings = ChatSettings()
    serving: ServingSettings = ServingSettings()
    storage: StorageSettings = StorageSettings()
    privacy: PrivacySettings = PrivacySettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    canary: CanarySettings = CanarySettings()
    schedule: ScheduleSettings = ScheduleSettings()
    discord: DiscordSettings = DiscordSettings()
    console: ConsoleSettings = ConsoleSettings()
    api: ApiSettings = ApiSettings()
    data_dir: Path = Path(DEFAULT_DATA_DIR)
    config_file: Path | None = None
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
    def training_threads(self) -> int:
        """CPU threads of a training run."""
        return self.training.threads or max(1, available_cores() // 2)

    @property
    def serving_threads_while_training(self) -> int:
        """CPU threads left to the model while a run goes on: two pools on one core run 20 times
        slower.
        """
        return max(1, min(self.serving_threads, available_cores() - self.training_threads))


class _Environment(BaseSettings):
    """What comes from the environment or `.env`: secrets, and where the world lies."""

    model_config = SettingsConfigDict(
        env_prefix="THUMBTUNE_", extra="ignore", env_ignore_empty=True
    )

    config: Path | None = None
    data_dir: Path | None = None
    db_key: SecretStr | None = None
    console_password: SecretStr | None = None
    remote_key: SecretStr | None = None
    discord_token: Annotated[
        SecretStr | None,
        Field(validation_alias=AliasChoices("DISCORD_TOKEN", "THUMBTUNE_DISCORD_TOKEN")),
    ] = None


def available_cores() -> int:
    """Return the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
            "db_key": environment.db_key,
            "discord_token": environment.discord_token,
            "console_password": environment.console_password,
            "remote_key": environment.remote_key,
        }
    )


_RESERVED = {
    "data_dir": "use --data-dir or THUMBTUNE_DATA_DIR",
    "config_file": "use --config or THUMBTUNE_CONFIG",
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
    if settings.serving.backend == "remote" and not settings.serving.remote_url:
        faults.append(
            'serving.backend is "remote" but serving.remote_url is empty; write, for example, '
            '"http://gpu-host:8700/v1"'
        )
    scheduled = settings.schedule.cron or settings.schedule.min_votes
    if scheduled and not settings.training.enabled:
        faults.append("schedule is set but training.enabled is false; clear one of them")
    if settings.training.load_in_4bit and not settings.model.device.startswith(("auto", "cuda")):
        faults.append(
            f"training.load_in_4bit needs CUDA, but model.device is {settings.model.device!r}"
        )
    return faults
