"""`python -m hardsoft.sweep prompt=cot,zero_shot quantization=none,nf4`: each a DVC experiment, compared at the end.

It is Hydra's multirun, so that its launchers and sweepers work. What a job (`job.py`) printed lies in `.cache/sweeps/`.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from hardsoft.config.compose import compose
from hardsoft.config.load import load_yaml
from hardsoft.core.errors import InputError
from hardsoft.core.progress import note
from hardsoft.core.runner import run
from hardsoft.sweep.job import FOLDER, LOG, OUTCOME, PROCESS, STOPPED, Outcome, job, own
from hardsoft.sweep.stop import stop
from hydra_plugins.hardsoft_optuna.sweeper import split_space

CONF = Path("conf")
SEARCH = "hydra/sweeper=optuna"


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
    meant = [argument for argument in arguments if not own(argument)]
    try:
        with initialize_config_dir(str(CONF.absolute()), version_base=None):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            if SEARCH in arguments:
                plans = choices(parser, meant)
            else:
                # Hydra's own: test_globs_ranges_and_presets_are_swept would notice a change.
                plans = BasicSweeper.split_arguments(parser.parse_overrides(meant), None)[0]
    except HydraException as error:
        raise InputError(f"overrides that Hydra does not understand: {str(error).partition(chr(10) + 'See ')[0]}") from None
    if not plans:
        raise InputError("nothing to run: an override has no values")
    return plans


def choices(parser: OverridesParser, arguments: Sequence[str]) -> list[list[str]]:
    """What a search can be tried with before it begins: the overrides that stay, alone and with each discrete choice."""
    fixed, varied = split_space(parser, arguments, load_yaml(str(CONF / "sweep.yaml"))["sweep"]["space"])
    discrete = [override for override in varied if override.is_discrete_sweep()]
    values = [f"{override.get_key_element()}={value}" for override in discrete for value in override.sweep_string_iterator()]
    return [fixed, *([*fixed, value] for value in values)]


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


def tell(folder: Path) -> None:
    """Compare the finished experiments, the first being the baseline, and name the others.

    Raises:
        InputError: some failed.
    """
    paths = sorted(folder.glob(f"*/{OUTCOME}"), key=lambda path: int(path.parent.name))
    ended = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
    done, failed = [outcome.name for outcome in ended if not outcome.error], [outcome for outcome in ended if outcome.error]
    if len(done) > 1:
        subprocess.run([sys.executable, "-m", "hardsoft.compare", *done[1:], "--baseline", done[0]], check=False)
    for outcome in failed:
        print(f"failed: {outcome.name}: {outcome.error}")
    if failed:
        raise InputError(f"{len(failed)} of {len(ended)} experiments failed; {folder}/*/{LOG} has what they printed")


def main() -> None:
    arguments = sys.argv[1:]
    multirun = hydra.main(config_path=str(CONF.absolute()), config_name="sweep", version_base=None)(job)
    if set(arguments) & {"--help", "-h", "--hydra-help", "--info", "-i", "--cfg", "-c", "--version"}:
        multirun()
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    check(overrides)
    given = next((override.partition("=")[2] for override in overrides if override.startswith("sweep.name=")), None)
    name = claim(given)
    folder = FOLDER / name
    sys.argv[1:] = [*arguments, *([] if given else [f"sweep.name='{name}'"])]
    try:
        multirun()
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
