"""What the machine behind launcher.ssh_host has and lacks, told before anything is sent."""

from __future__ import annotations

from pydantic import BaseModel

from trainer.launchers.connection import Address, Connection
from trainer.launchers.faults import Refused, no_rsync
from trainer.launchers.parcel import NEEDED, PACKAGES, PYTHON


class Look(BaseModel):
    """What was found there at a glance, and how a run stands."""

    root: str
    python: str
    python_works: bool
    missing: list[str]
    rsync: bool
    free_bytes: int
    state: str

    def check(self, host: str) -> None:
        """Raise Refused if a run could not train there."""
        if not self.python_works:
            wanted = ".".join(str(part) for part in PYTHON)
            raise Refused(
                f"{host}: Python {self.python} is too old; name one from {wanted} on in "
                "launcher.ssh_python"
            )
        if self.missing:
            raise Refused(
                f"{host}: its Python lacks {', '.join(self.missing)}; install them there, or name "
                "an interpreter that has them in launcher.ssh_python (docs/gpu-host.md)"
            )
        if not self.rsync:
            raise no_rsync(host)


class Machine(BaseModel):
    """Versions and GPU."""

    versions: dict[str, str]
    gpu: str
    gpu_free_bytes: int


async def look(connection: Connection, name: str = "") -> Look:
    """Ask what there is, and how the run of this name stands."""
    answer = await connection.ask("look", name=name, packages=NEEDED, python=PYTHON)
    return Look.model_validate(answer)


async def describe_host(address: Address, device: str) -> str:
    """Say in a sentence what a run would find there; raises TrainingError if it could not run."""
    connection = Connection(address)
    found = await look(connection)
    found.check(address.host)
    answer = await connection.ask("machine", packages=PACKAGES)
    machine = Machine.model_validate(answer)
    if machine.gpu and device == "cpu":
        raise Refused(
            f'{address.host}: model.device is "cpu" here, which holds for runs too, so its '
            f'{machine.gpu} would stay idle; write model.device = "auto"'
        )
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpu = f"{machine.gpu}, {machine.gpu_free_bytes / 1e9:.0f} GB of it free" if machine.gpu else ""
    return (
        f"{address.host} by ssh: Python {found.python}, {versions}, rsync; "
        f"{gpu or 'no CUDA GPU found: fine for small models'}; {found.free_bytes / 1e9:.0f} GB "
        f"free on the disk of {found.root}"
    )
