"""What ssh and rsync say when they fail, as an error that says what to do.

Knows no processes: it is given what was said.
"""

from __future__ import annotations

from core.errors import TrainingError

NO_COMMAND = 127
_LOST_RSYNC = {10, 12, 30, 35, 255}
"""rsync's exit codes of a connection that broke, stood still or was never made."""


class Unreachable(TrainingError):
    """No connection, or it was lost: what was to be done may be tried again."""


class NoSuchHost(Unreachable):
    """The host's name means nothing here: a mistake, or a network that is away."""


class Refused(TrainingError):
    """The other machine, or ssh here, will not; trying again changes nothing."""


_REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known here: another machine answers under this name, "
        "or it was installed anew. Ask its administrator; if that is so, forget the old key "
        "(ssh-keygen -R, with the name and port that ~/.ssh/known_hosts has) and connect by hand: "
        "ssh {host}",
    ),
    (
        "Host key verification failed",
        "its host key is not known here. Connect once by hand, compare the key, answer yes: "
        "ssh {host}",
    ),
    (
        "Permission denied (",
        "it does not accept a key of this user. Copy yours there (ssh-copy-id {host}); a key "
        "with a passphrase needs an ssh-agent that the bot can reach, since no password is asked",
    ),
    ("Too many authentication failures", "name the one key in ~/.ssh/config (IdentitiesOnly yes)"),
    ("Bad configuration option", "ssh's own configuration cannot be read"),
    ("Bad owner or permissions", "ssh does not trust the permissions of its own configuration"),
    ("Can't open user config file", "ssh's own configuration cannot be read"),
)
_NO_NAME = ("Name or service not known", "nodename nor servname", "No address associated")


def ssh_failed(host: str, code: int, said: str, python: str) -> TrainingError:
    """Return the error for an ssh command that ended without an answer."""
    if code == NO_COMMAND or "command not found" in said or f"{python}: not found" in said:
        return Refused(
            f"{host}: {python} was not found there ({_last(said)}); name an interpreter that has "
            "torch, transformers, peft and trl in launcher.ssh_python"
        )
    for sign, advice in _REFUSALS:
        if sign in said:
            return Refused(f"{host}: {advice.format(host=host)} ({_last(said)})")
    if any(sign in said for sign in _NO_NAME):
        return NoSuchHost(
            f"{host}: no host of this name was found ({_last(said)}); see launcher.ssh_host and "
            "~/.ssh/config"
        )
    if code == 255:
        return Unreachable(f"{host}: no connection ({_last(said)})")
    return Refused(f"{host}: {python} failed there with exit code {code} ({_last(said)})")


def rsync_failed(
    host: str, code: int, said: str, python: str, *, into: str | None = None
) -> TrainingError:
    """Return the error for a transfer, `into` a directory here or else there, that failed."""
    if "No space left" in said or "Disk quota exceeded" in said:
        return Refused(f"{into}: the disk is full; make room") if into else disk_full(host)
    if "rsync: command not found" in said or "rsync: not found" in said:
        return no_rsync(host)
    if "is your shell clean" in said:
        return Refused(
            f"{host}: its login shell prints something when nobody is there, so files cannot be "
            f"sent; make this print nothing: ssh {host} true"
        )
    if code in _LOST_RSYNC:
        error = ssh_failed(host, 255, said, python)
        return error if isinstance(error, Refused) else Unreachable(str(error))
    return Refused(f"{host}: rsync failed with exit code {code} ({_last(said)})")


def disk_full(host: str) -> Refused:
    """Return the error for a full disk on the other machine."""
    return Refused(
        f"{host}: the disk there is full; make room, or name another launcher.ssh_directory"
    )


def no_rsync(host: str) -> Refused:
    """Return the error for an rsync that the other machine lacks."""
    return Refused(f"{host}: rsync is not installed there; on Debian: sudo apt install rsync")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
