"""Time every implementation of the selective scan side by side, and peers where installed.

python -m kernels.bench [--suite cpu] [--save]

Medians over rounds in which each contender runs once, synchronised, on inputs that rotate.
"""

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from kernels.bench.contenders import Phase, contenders
from kernels.bench.measure import bytes_per_second, error, exponentials_per_second
from kernels.bench.suites import SUITES, Case
from kernels.host_memory import keep_freed_memory
from kernels.timing import medians

SETS = 3  # Of inputs, so that none is found in a cache.
Record = dict[str, Any]  # Of one contender and case, as a line of JSON.
RESULTS = Path(__file__).parent.parent / "results"


@dataclasses.dataclass(frozen=True)
class Options:
    """Time every implementation of the selective scan side by side, and peers where installed."""

    suite: Literal["demo", "cpu", "vim", "plain_mamba", "high_resolution"] = "cpu"
    """Sizes to run; the last three are for GPUs."""
    rounds: int = 15
    """Timed runs of each contender; the median counts."""
    keep_memory: bool = True
    """Keep freed memory in the process, as training does; else the C library does as it likes."""
    save: bool = False
    """Keep the JSON lines in kernels/results/, a file per suite, device, jax and use of memory."""


def main() -> None:
    """The command: a table on stderr, and a JSON line per case and contender on stdout."""
    options = tyro.cli(Options, description=__doc__)
    if options.rounds < 1:
        sys.exit(f"error: --rounds is {options.rounds}; it must be at least 1.")
    keeps = options.keep_memory and keep_freed_memory()
    device = jax.devices()[0]
    about = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "keeps_freed_memory": keeps,
        "exponentials_per_second": exponentials_per_second(),
        "bytes_per_second": bytes_per_second(),
    }
    width = None if sys.stderr.isatty() else 160
    console = Console(stderr=True, width=width, markup=False, emoji=False)
    records = []
    for case in track(SUITES[options.suite], options.suite, console=console):
        for record in measure(case, options.rounds):
            records.append(record | about)
            print(json.dumps(records[-1]), flush=True)
    console.print(table(records))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        run = f"{options.suite} {device.device_kind} jax {jax.__version__}"
        slug = re.sub(r"\W+", "-", run if keeps else f"{run} plain memory")
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (RESULTS / f"{slug.lower()}.jsonl").write_text(lines)


def measure(case: Case, rounds: int) -> list[Record]:
    """One record per contender that can run the case; the others' records say why not."""
    rotation = [case.inputs(seed) for seed in range(SETS)]
    about = {"case": str(case), **dataclasses.asdict(case)}
    prepared, records = {}, []
    for name, prepare in contenders(pruned=case.kept < case.length).items():
        try:
            prepared[name] = prepare(rotation)
        except (NotImplementedError, RuntimeError) as reason:
            records.append(about | {"contender": name, "refused": " ".join(str(reason).split())})
    times = {
        phase: medians({name: _rotating(p.phases[phase]) for name, p in prepared.items()}, rounds)
        for phase in ("forward", "saving", "backward", "both")
    }
    for name, (phases, memory) in prepared.items():
        record = {f"{phase}_ms": 1e3 * of[name] for phase, of in times.items()}
        wrong = error(phases["forward"](0), rotation[0])
        record |= {"memory_bytes": memory, "error": wrong}
        records.append(about | {"contender": name} | record)
    return records


def _rotating(phase: Phase) -> Callable[[], Any]:
    """The phase, at every call on the next set of inputs."""
    turns = itertools.cycle(range(SETS))
    return lambda: phase(next(turns))


def table(records: list[Record]) -> Table:
    """The records for people, with the share of two roofs that the forward pass reaches."""
    first = records[0]
    view = Table(title=f"{first['device']}, jax {first['jax']}; milliseconds")
    for heading in ("case", "contender"):
        view.add_column(heading)
    columns = ("forward", "saving", "backward", "both", "exp roof", "memory roof", "MB", "error")
    for heading in columns:
        view.add_column(heading, justify="right", no_wrap=True)
    fields = [field.name for field in dataclasses.fields(Case)]
    for record in records:
        if "refused" in record:
            view.add_row(record["case"], record["contender"], *["-"] * 7, "refused")
            continue
        case = Case(**{field: record[field] for field in fields})
        seconds = record["forward_ms"] / 1e3
        roofs = (
            case.exponentials / record["exponentials_per_second"] / seconds,
            case.forward_bytes / record["bytes_per_second"] / seconds,
        )
        times = (f"{record[f'{p}_ms']:.2f}" for p in ("forward", "saving", "backward", "both"))
        shares = (f"{100 * share:.0f}%" for share in roofs)
        name = record["contender"]
        rest = f"{record['memory_bytes'] / 1e6:.0f}", f"{record['error']:.1e}"
        view.add_row(record["case"], name, *times, *shares, *rest)
    return view


if __name__ == "__main__":
    main()
