"""The sections of `config.toml`: one frozen model each, with its defaults and its own checks.

What lies between sections is checked in core.settings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from core.canary import CanaryRules
from core.shares import Group, ShardShare, whole_shards

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

    backend: Literal["local", "remote", "vllm", "ray"] = "local"
    remote_url: Annotated[str, Field(pattern=r"^(https?://[^/\s]+(/\S*)?)?$")] = ""
    vllm_base: str = ""
    vllm_adapters: str = ""
    vllm_adapters_there: Annotated[str, Field(pattern=r"^(/.*)?$")] = ""
    threads: Annotated[int, Field(ge=0)] = 0
    decoder: Literal["auto", "compiled", "generic"] = "auto"
    quantization: Literal["auto", "int8", "none"] = "auto"
    max_batch: Positive = 16
    max_queue: Annotated[int, Field(ge=0)] = 64
    max_context_tokens: Annotated[int, Field(ge=64)] = 2048
    deadline_s: Annotated[float, Field(gt=0)] = 120.0
    max_adapters: Annotated[int, Field(ge=2)] = 8


class ReplicaSettings(_Section):
    """How many engines write replies under Ray Serve, and where (`serving.backend` "ray").

    `address` empty begins a Ray of our own on this machine. `app` is what the replicas are called
    on the cluster: each bot there has one of its own.
    """

    address: Annotated[str, Field(pattern=r"^(auto|[A-Za-z0-9.\[\]:_-]+:\d+)?$")] = ""
    app: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "thumbtune"
    min: Positive = 1
    max: Positive = 2
    gpus: Annotated[float, Field(ge=0)] = 0.0
    target_replies: Annotated[float, Field(gt=0)] = 12.0
    grow_after_s: Annotated[float, Field(ge=0)] = 10.0
    shrink_after_s: Annotated[float, Field(ge=0)] = 300.0
    start_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    keep: bool = False

    @field_validator("gpus")
    @classmethod
    def _a_part_or_whole_ones(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("expected a part of one GPU, or whole ones")
        return gpus


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
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    sharding: Literal["none", "fsdp"] = "none"
    report_to: str = "none"

    @field_validator("batch_size")
    @classmethod
    def _two_or_more(cls, size: int) -> int:
        if size == 1:
            raise ValueError("expected 2 or more, or 0 for the recipe's own")
        return size

    @model_validator(mode="after")
    def _shards_have_devices(self) -> Self:
        if self.sharding == "fsdp" and self.gpus < 2:
            raise ValueError('sharding = "fsdp" needs gpus = 2 or more: one has nothing to share')
        if self.sharding == "fsdp" and self.load_in_4bit:
            raise ValueError(
                'load_in_4bit and sharding = "fsdp" exclude each other: a base of 4 bits is held '
                'whole on each GPU (sharding = "none")'
            )
        return self


class LauncherSettings(_Section):
    """Where training runs go: this machine, another reached by ssh, or a Ray cluster.

    `base` is where the base model lies over there; empty sends it once.
    """

    kind: Literal["local", "ssh", "ray"] = "local"
    base: str = ""
    threads: Annotated[int, Field(ge=0)] = 0
    ssh_host: Annotated[str, Field(pattern=r"^([A-Za-z0-9_.@:\[\]%][A-Za-z0-9_.@:\[\]%-]*)?$")] = ""
    ssh_directory: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./~-]+$")] = "thumbtune"
    ssh_python: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./~-]+$")] = "python3"
    ray_address: str = ""
    ray_gpus: Annotated[float, Field(ge=0)] = 1.0
    ray_memory_gb: Annotated[float, Field(ge=0)] = 0.0
    ray_retries: Annotated[int, Field(ge=0, le=100)] = 3


class GateSettings(_Section):
    """The bounds a candidate must keep."""

    min_people: Positive = 3
    min_held_out: Positive = 16
    min_each_side: Positive = 4
    max_p_value: Annotated[float, Field(gt=0, le=1)] = 0.05
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
    shards: Annotated[int, Field(ge=0, le=16_384)] = 0
    group: Annotated[int, Field(ge=0)] = 0
    groups: Annotated[int, Field(ge=1, le=1024)] = 1
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

    @model_validator(mode="after")
    def _a_share(self) -> DiscordSettings:
        if self.group >= self.groups:
            raise ValueError(
                f"group is {self.group} but there are {self.groups} groups, counted from 0; write "
                f"a group from 0 to {self.groups - 1}, or more groups"
            )
        if self.shards % self.groups:
            raise ValueError(
                f"shards is {self.shards}, which {self.groups} groups cannot share evenly; write a "
                f"multiple of {self.groups}, or 0 for what Discord recommends"
            )
        return self

    def share(self, recommended: int) -> ShardShare:
        """Return which shards this process runs where Discord recommends so many in all."""
        group = Group(self.group, self.groups)
        return ShardShare(group, self.shards or whole_shards(recommended, self.groups))


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
