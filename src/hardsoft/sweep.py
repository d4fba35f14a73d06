"""`python -m hardsoft.sweep prompt=cot,zero_shot quantization=none,nf4`: each a DVC experiment, compared at the end.

It is Hydra's multirun, so that its launchers and sweepers work. A job is `dvc exp run --temp`, which leaves the workspace alone;
what it printed lies in `.cache/sweeps/`. Knows nothing of what an experiment does.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dvc.api
import hydra
import psutil
import pynvml
from filelock import FileLock, Timeout
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from hardsoft.config.compose import compose
from hardsoft.config.schema import load_yaml
from hardsoft.core.errors import InputError
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.progress import note
from hardsoft.core.runner import run

CONF = Path("conf")
FOLDER = Path(".cache/sweeps")
ACCURACY = "metrics/accuracy.json"
OUTCOME, PROCESS, LOG, STOPPED = "outcome.json", "process", "output.log", "stopped"
PATIENCE = 60
"""Seconds that an interrupted experiment has to tidy up."""
SEARCH = "hydra/sweeper=optuna"


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
        return [one for one in given.split(",") if one]
    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def figure(name: str, key: str) -> float | None:
    """A figure of an experiment's accuracy.json by its dotted key; None where it is not estimable.

    Raises:
        InputError: there is no such figure.
    """
    value: Any = json.loads(dvc.api.read(ACCURACY, rev=name))
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"sweep.objective {key}: is no figure of {ACCURACY}")
        value = value[part]
    if isinstance(value, dict | str):
        raise InputError(
            f"sweep.objective {key}: is no figure of {ACCURACY}, but {value if isinstance(value, str) else list(value)}"
        )
    return None if value is None else float(value)


@hydra.main(config_path=str(CONF.absolute()), config_name="sweep", version_base=None)
def job(config: DictConfig) -> float:
    """One job of the multirun; what it returns is what a search maximises."""
    settings = HydraConfig.get()
    number, overrides = settings.job.num, [one for one in settings.overrides.task if not own(one)]
    sweep = Path(settings.sweep.dir)
    if (sweep / STOPPED).exists():
        return float("-inf")
    name, folder = experiment_name(config.sweep.name, number, overrides), sweep / str(number)
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


def check(arguments: Sequence[str]) -> None:
    """Raise InputError for whatever would stop an experiment; better before the first than after it."""
    if _git("rev-parse", "HEAD") is None:
        raise InputError("experiments are commits: run it in a git repository with a first commit (`git clone`, or `git init`)")
    if not Path(".dvc").is_dir() or not (CONF / "sweep.yaml").is_file():
        raise InputError(
            "run it in the folder of a DVC repository with a conf/sweep.yaml, hardsoft's own (`dvc init` makes .dvc)"
        )
    if unmerged := sorted({line.split("\t")[1] for line in (_git("ls-files", "-u") or "").splitlines()}):
        raise InputError(f"git: {', '.join(unmerged)} unmerged; resolve the conflict first")
    if changed := (_git("status", "--porcelain", "-uno") or "").splitlines():
        note(f"uncommitted changes enter every experiment: {', '.join(line[3:] for line in changed)}")
    for overrides in planned(arguments):
        compose(overrides)


def planned(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides to try before the first job: of each experiment or, in a search, each choice beside the overrides that stay.

    Raises:
        InputError: an override that Hydra does not understand, or nothing to run.
    """
    try:
        with initialize_config_dir(str(CONF.absolute()), version_base=None):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            meant: list[Override] = parser.parse_overrides([one for one in arguments if not own(one)])
            if SEARCH not in arguments:
                plans = BasicSweeper.split_arguments(meant, None)[0]
            else:
                given = {one.get_key_element() for one in meant}
                space = load_yaml(str(CONF / "sweep.yaml"))["sweep"]["space"]
                meant += parser.parse_overrides([f"{key}={value}" for key, value in space.items() if key not in given])
                fixed = [str(one.input_line) for one in meant if not one.is_sweep_override()]
                choices = [
                    f"{one.get_key_element()}={value}"
                    for one in meant
                    if one.is_discrete_sweep()
                    for value in one.sweep_string_iterator()
                ]
                plans = [fixed, *([*fixed, choice] for choice in choices)]
    except HydraException as error:
        raise InputError(f"overrides that Hydra does not understand: {str(error).partition(chr(10) + 'See ')[0]}") from None
    if not plans:
        raise InputError("nothing to run: an override has no values")
    return plans


def claim(given: str | None) -> str:
    """The name of a sweep that no other has, now or before.

    Raises:
        InputError: the given one is taken.
    """
    name = given or f"{time.strftime('%m%d-%H%M%S')}-{os.getpid()}"
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?", name) or ".." in name:
        raise InputError(f"sweep.name={name}: letters, digits, dashes and dots can name an experiment")
    taken = [ref for ref in (_git("for-each-ref", "--format=%(refname)", "refs/exps") or "").split() if f"/{name}-" in ref]
    if taken:
        raise InputError(
            f"sweep.name={name}: there is an experiment {taken[0].rpartition('/')[2]}; take another name or remove it"
        )
    try:
        (FOLDER / name).mkdir(parents=True)
    except FileExistsError:
        if list((FOLDER / name).glob(f"*/{PROCESS}")):
            raise InputError(f"sweep.name={name}: a sweep of that name runs") from None
        for path in (FOLDER / name).glob(f"*/{OUTCOME}"):
            path.unlink()
        (FOLDER / name / STOPPED).unlink(missing_ok=True)
    return name


def stop(folder: Path) -> None:
    """Begin no further experiment, interrupt those that run on this machine, and wait until they are gone."""
    (folder / STOPPED).touch()
    running, elsewhere = [], False
    for path in folder.glob(f"*/{PROCESS}"):
        with suppress(ValueError, OSError, psutil.NoSuchProcess):
            node, pid = path.read_text(encoding="utf-8").split()
            if node != platform.node():
                elsewhere = True
                continue
            running.append(psutil.Process(int(pid)))
            os.killpg(int(pid), signal.SIGINT)
    _, alive = psutil.wait_procs(running, timeout=PATIENCE)
    for process in alive:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if elsewhere:
        note("experiments on other nodes go on, since only their scheduler can stop them (scancel)")
        return
    for path in folder.glob(f"*/{PROCESS}"):
        path.unlink(missing_ok=True)
    # DVC leaves the folder of an experiment that is interrupted while it is being set up.
    if not any("exp" in one.info["cmdline"] and one.info["cwd"] == os.getcwd() for one in processes_of("dvc")):
        for path in Path(".dvc/tmp/exps/standalone").glob("tmp*"):
            shutil.rmtree(path, ignore_errors=True)


def processes_of(program: str) -> Iterator[psutil.Process]:
    """The processes on this machine that run a program, by name or as a Python module; `info` has cmdline and cwd."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if any(Path(word).name == program for word in process.info["cmdline"] or ()):
            yield process


def tell(folder: Path) -> None:
    """Compare the finished experiments, the first being the baseline, and name the others.

    Raises:
        InputError: some failed.
    """
    paths = sorted(folder.glob(f"*/{OUTCOME}"), key=lambda path: int(path.parent.name))
    ended = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    done, failed = [one.name for one in ended if not one.error], [one for one in ended if one.error]
    if len(done) > 1:
        subprocess.run([sys.executable, "-m", "hardsoft.compare", *done[1:], "--baseline", done[0]], check=False)
    for one in failed:
        print(f"failed: {one.name}: {one.error}")
    if failed:
        raise InputError(f"{len(failed)} of {len(ended)} experiments failed; {folder}/*/{LOG} has what they printed")


def main() -> None:
    arguments = sys.argv[1:]
    if set(arguments) & {"--help", "-h", "--hydra-help", "--info", "-i", "--cfg", "-c", "--version"}:
        job()
        return
    overrides = [one for one in arguments if not one.startswith("-")]
    check(overrides)
    given = next((one.partition("=")[2] for one in overrides if one.startswith("sweep.name=")), None)
    name = claim(given)
    folder = FOLDER / name
    sys.argv[1:] = [*arguments, *([] if given else [f"sweep.name='{name}'"])]
    try:
        job()
    except KeyboardInterrupt:
        stop(folder)
        raise
    tell(folder)


def _git(*command: str) -> str | None:
    """What git prints; None if it fails."""
    done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    run("sweep", main)
