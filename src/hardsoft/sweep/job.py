"""One job of a sweep: a DVC experiment, run with --temp, which leaves the workspace alone, and the figure that it gives.

Knows Hydra's settings of the job and where it leaves what `stop` and the end of a sweep read; not what an experiment does.
"""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pynvml
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hardsoft.config.load import load_yaml
from hardsoft.core.errors import InputError
from hardsoft.core.files import to_json, write_outputs
from hardsoft.sweep.objective import figure

FOLDER = Path(".cache/sweeps")
OUTCOME, PROCESS, LOG, STOPPED = "outcome.json", "process", "output.log", "stopped"


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment."""

    name: str
    error: str | None
    """Why there is none; None if there is."""
    objective: float | None
    """The figure that a search maximises; None where it is not estimable."""


def own(override: str) -> bool:
    """Whether an override is about the sweep itself, not about its experiments."""
    return override.lstrip("+~").startswith(("hydra.", "hydra/", "sweep."))


def experiment_name(sweep: str, number: int, overrides: Sequence[str]) -> str:
    """A name that people can read: the sweep's, the job's number, and the values of its overrides."""
    values = [re.sub(r"[^A-Za-z0-9.]+", "_", override.partition("=")[2]).strip("_.") for override in overrides]
    return re.sub(r"\.\.+", ".", "-".join([sweep, str(number), *filter(None, values)]))[:100].rstrip(".-")


def experiment(name: str, overrides: Sequence[str], folder: Path, environment: dict[str, str]) -> str | None:
    """Run one experiment; None, or the line that says why it failed."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "exp", "run", "--temp", "-n", name]
    command += [word for override in overrides for word in ("-S", override)]
    with open(folder / LOG, "w", encoding="utf-8") as log:
        # Of a session of its own, so that Ctrl-C reaches it once, through `stop`, whichever launcher started it.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | environment, start_new_session=True
        )
        (folder / PROCESS).write_text(f"{platform.node()} {process.pid}", encoding="utf-8")
        code = process.wait()
        (folder / PROCESS).unlink(missing_ok=True)
    if code == 0:
        return None
    lines = [line.strip() for line in (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    stages = "|".join(load_yaml("dvc.yaml")["stages"])
    failed = [line for line in lines if re.match(rf"({stages}): ", line)]
    told = [line for line in lines if line.startswith("ERROR:")]
    return (failed or told or lines or [f"exit code {code}"])[-1]


@contextmanager
def own_device(launcher: str) -> Iterator[dict[str, str]]:
    """A GPU that no other job has, as environment; none where jobs come one after the other, or a cluster gives out devices."""
    devices = [] if "Basic" in launcher or "Slurm" in launcher else visible_devices()
    while devices:
        for device in devices:
            with suppress(Timeout), FileLock(FOLDER / f"gpu-{device}.lock", timeout=0):
                yield {"CUDA_VISIBLE_DEVICES": device}
                return
        time.sleep(1)
    yield {}


def visible_devices() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device for device in given.split(",") if device]
    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def job(config: DictConfig) -> float:
    """One job of the multirun, by a name that a launcher's workers can import; what it returns is what a search maximises."""
    settings = HydraConfig.get()
    number, overrides = settings.job.num, [override for override in settings.overrides.task if not own(override)]
    sweep = Path(settings.sweep.dir)
    if (sweep / STOPPED).exists():
        return float("-inf")
    name, folder = experiment_name(str(config.sweep.name), number, overrides), sweep / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{name}: begins", flush=True)
    begin, objective = time.monotonic(), None
    with own_device(str(settings.launcher.get("_target_"))) as device:
        error = experiment(name, overrides, folder, device)
    if error is None:
        try:
            objective = figure(name, config.sweep.objective)
        except InputError as missing:
            error = str(missing)
    write_outputs({str(folder / OUTCOME): to_json(asdict(Outcome(name, error, objective)))})
    result = f"failed: {error}" if error else f"{config.sweep.objective} {objective}"
    print(f"{name}: {result} ({time.monotonic() - begin:.0f} s)", flush=True)
    return float("-inf") if objective is None else objective
