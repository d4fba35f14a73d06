"""`python -m hardsoft.sweep prompt=cot,zero_shot quantization=none,nf4`: each a DVC experiment, compared at the end.

It is Hydra's multirun, so that its launchers and sweepers work. What a job (`job.py`) printed lies in `.cache/sweeps/`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hardsoft.config.compose import compose
from hardsoft.config.load import load_yaml
from hardsoft.core.errors import InputError
from hardsoft.core.progress import note
from hardsoft.core.runner import run
from hardsoft.sweep.claims import claim, is_name, name_given, release
from hardsoft.sweep.git import run_git
from hardsoft.sweep.job import FOLDER, LOG, OUTCOME, Outcome, job, own
from hardsoft.sweep.objective import check_objective
from hardsoft.sweep.stop import end_as_by_ctrl_c, stop
from hydra_plugins.hardsoft_optuna.sweeper import split_space

CONF = Path("conf")
SEARCH = "hydra/sweeper=optuna"


def check(arguments: Sequence[str]) -> None:
    """Raise InputError for whatever would stop an experiment; better before the first than after it."""
    if run_git("rev-parse", "HEAD") is None:
        raise InputError("experiments are commits: run it in a git repository with a first commit (`git clone`, or `git init`)")
    if not Path(".dvc").is_dir() or not (CONF / "sweep.yaml").is_file():
        raise InputError(
            "run it in the folder of a DVC repository with a conf/sweep.yaml, hardsoft's own (`dvc init` makes .dvc)"
        )
    if unmerged := sorted({line.split("\t")[1] for line in (run_git("ls-files", "-u") or "").splitlines()}):
        raise InputError(f"git: {', '.join(unmerged)} unmerged; resolve the conflict first")
    if changed := (run_git("status", "--porcelain", "-uno") or "").splitlines():
        note(f"uncommitted changes enter every experiment: {', '.join(line[3:] for line in changed)}")
    check_objective(settings(arguments).sweep.objective)
    for overrides in planned(arguments):
        check_in_git(overrides, compose(overrides))


def settings(arguments: Sequence[str]) -> DictConfig:
    """conf/sweep.yaml with the overrides that are about the sweep itself.

    Raises:
        InputError: there is no such setting.
    """
    try:
        with initialize_config_dir(str(CONF.absolute()), version_base=None):
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides([argument for argument in arguments if own(argument)])
            fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
            return hydra.compose("sweep", fixed, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"conf/sweep.yaml: {str(error).partition(chr(10))[0]}") from None


def check_in_git(overrides: list[str], params: str) -> None:
    """Raise InputError for a file that an experiment uses and git does not know: experiments run in a copy of what git knows.

    Args:
        params: what the overrides compose to.
    """
    options = (run_git("ls-files", "-z", "--others", "--", str(CONF)) or "").split("\0")[:-1]
    others = (run_git("ls-files", "-z", "--others", "--exclude-standard") or "").split("\0")[:-1]
    if not options and not others:
        return
    with initialize_config_dir(str(CONF.absolute()), version_base=None):
        chosen = hydra.compose("config", overrides, return_hydra_config=True).hydra.runtime.choices
    used = {str(CONF / group.partition("@")[0] / f"{choice}.yaml") for group, choice in chosen.items()}
    used |= set(re.findall(r"[^\s'\"]+", params))
    if unknown := sorted(used & {*options, *others}):
        are, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
        raise InputError(f"{', '.join(unknown)} {are} not in git; `git add` {them}")


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
    name = claim(name_given(overrides))
    folder = FOLDER / name
    end_as_by_ctrl_c()
    # Quoted, since a name may look like a number or a truth value.
    sys.argv[1:] = [*(argument for argument in arguments if not is_name(argument)), f"sweep.name='{name}'"]
    try:
        multirun()
    except KeyboardInterrupt:
        stop(folder)
        raise
    finally:
        release(name)
    tell(folder)


if __name__ == "__main__":
    run("sweep", main)
