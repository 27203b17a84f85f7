"""How a run is carried out here and now: what changes neither its config nor its results."""

import dataclasses
from pathlib import Path
from typing import Literal

from train.hosts.fields import ABOVE_0, check


@dataclasses.dataclass(frozen=True)
class DistributedOptions:
    """Where the run's processes meet; nothing is needed under SLURM, which knows all of it.

    Attributes:
      coordinator: HOST:PORT of process 0, which every process can reach.
      processes: how many there are.
      process: number of this one, from 0.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


@dataclasses.dataclass(frozen=True)
class TargetOptions:
    """GPUs that `--dry-run` estimates the memory of, in place of the devices that are here.

    Attributes:
      devices: how many, of all processes together.
      gigabytes: memory of each, in units of 10^9 bytes, as 80.
      scan: what computes the scan there; `reference` on GPUs of compute capability below 8.0.
    """

    devices: int | None = None
    gigabytes: float | None = None
    scan: Literal["pallas_triton", "reference"] = "pallas_triton"

    def __post_init__(self) -> None:
        if (self.devices is None) != (self.gigabytes is None):
            raise ValueError(
                f"--target.devices is {self.devices} and --target.gigabytes is {self.gigabytes}; "
                "give both, as 8 and 80, or neither."
            )
        check(self, "--target.", ABOVE_0, "devices", "gigabytes")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a run lives, and on what.

    Attributes:
      config: a Python file that defines `config = Config(...)`, from `configs/`.
      workdir: folder for checkpoints, log, table, pictures and weights.
      resume: `auto` goes on from the workdir's newest sound checkpoint, if any; `never` refuses a
        workdir that already holds one.
      dry_run: print the whole config, sizes, FLOPs, memory and one step's shapes, and stop.
      profile: write a trace of ten steps to `workdir/profile`, for XProf or Perfetto.
      workers: processes that read and augment photos; 0 does it in threads of this one.
      fsdp: spread parameters and optimiser state over all devices, instead of a copy on each.
      wandb: project to log to, on Weights & Biases; None does not.
      distributed: for several processes.
      target: for `dry_run`: other devices than those here.
    """

    config: Path
    workdir: Path
    resume: Literal["never", "auto"] = "never"
    dry_run: bool = False
    profile: bool = False
    workers: int = 0
    fsdp: bool = False
    wandb: str | None = None
    distributed: DistributedOptions = DistributedOptions()
    target: TargetOptions = TargetOptions()

    def __post_init__(self) -> None:
        if self.target.devices is not None and not self.dry_run:
            raise ValueError("--target is for --dry-run; a run takes the devices that are here.")
