"""The launcher that the settings ask for."""

from __future__ import annotations

from core.settings import Settings
from trainer.launchers.base import Launcher
from trainer.launchers.local import LocalLauncher


def make_launcher(settings: Settings) -> Launcher:
    """Build it; what it needs (Ray, ssh) is looked for when a job is submitted."""
    if settings.launcher.kind == "ssh":
        from trainer.launchers.ssh import SshLauncher

        return SshLauncher(settings.launcher, config=settings.ssh_config)
    if settings.launcher.kind == "ray":
        from trainer.launchers.ray import RayLauncher

        return RayLauncher(settings.launcher)
    return LocalLauncher()
