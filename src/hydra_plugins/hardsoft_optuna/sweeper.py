"""`hydra/sweeper=optuna`: a search by Optuna, asked for the next trials and told their figures.

Knows the `sweep` node of conf/sweep.yaml and that a job returns what is to be as large as possible, not what a job does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:  # Hydra looks at its plugins at each start, most of which search nothing
    from optuna import Trial
    from optuna.distributions import BaseDistribution


@dataclass
class OptunaConfig:
    """What `hydra/sweeper=optuna` instantiates; its settings are those of `sweep`."""

    _target_: str = "hydra_plugins.hardsoft_optuna.sweeper.OptunaSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConfig, provider="hardsoft")


def split_space(parser: OverridesParser, arguments: Sequence[str], space: Mapping[str, Any]) -> tuple[list[str], list[Override]]:
    """The overrides that stay, and those that a search varies; of `space`, those whose keys the arguments do not name."""
    parsed = parser.parse_overrides(list(arguments))
    given = {override.get_key_element() for override in parsed}
    parsed += parser.parse_overrides([f"{key}={value}" for key, value in space.items() if key not in given])
    fixed = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
    return fixed, [override for override in parsed if override.is_sweep_override()]


def distribution(override: Override) -> "BaseDistribution":
    """The values that an override's sweep may take.

    Raises:
        ConfigCompositionException: a sweep of another kind.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, IntervalSweep):
        log = "log" in value.tags
        if all(isinstance(end, int) for end in (value.start, value.end)):
            return IntDistribution(int(value.start or 0), int(value.end or 0), log=log)
        return FloatDistribution(float(value.start or 0), float(value.end or 0), log=log)
    if isinstance(value, ChoiceSweep | RangeSweep | Glob):
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    raise ConfigCompositionException(f"sweep.space: {override.input_line} is no sweep")


def written(key: str, value: Any) -> str:
    """The override that sets a key to a trial's value."""
    return f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}"


class OptunaSweeper(Sweeper):
    """Searches the sweeps of the command line and of `sweep.space` for the largest figure, by Optuna's TPE sampler."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search, and print the best trial. A combination that was tried before is told again, not run again."""
        import optuna

        assert self.config is not None
        assert self.hydra_context is not None
        options = self.config.sweep
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        fixed, sweeps = split_space(parser, arguments, options.space)
        varied = {override.get_key_element(): distribution(override) for override in sweeps}

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))
        known: dict[tuple[str, ...], float] = {}
        while len(study.trials) < options.trials and len(known) < combinations(varied):
            room = min(options.at_once, options.trials - len(study.trials))
            asked = [study.ask(varied) for _ in range(room)]
            found = self.figures([[*fixed, *overrides(trial)] for trial in asked], known)
            for trial, figure in zip(asked, found, strict=True):
                if math.isfinite(figure):
                    study.tell(trial, figure)
                else:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if any(math.isfinite(figure) for figure in known.values()):
            best = max(known, key=lambda job: known[job])
            print(f"best of {len(known)}: {options.objective} {known[best]:.4f} with {' '.join(best[len(fixed) :])}", flush=True)

    def figures(self, wanted: Sequence[Sequence[str]], known: dict[tuple[str, ...], float]) -> list[float]:
        """The figures of some jobs by their overrides; those that are not known yet are run and added."""
        assert self.launcher is not None
        missing = list(dict.fromkeys(tuple(job) for job in wanted if tuple(job) not in known))
        if missing:
            returned = self.launcher.launch([list(job) for job in missing], initial_job_idx=len(known))
            known |= {job: float(result.return_value) for job, result in zip(missing, returned, strict=True)}
        return [known[tuple(job)] for job in wanted]


def overrides(trial: "Trial") -> list[str]:
    """A trial's values as Hydra overrides."""
    return [written(key, value) for key, value in trial.params.items()]


def combinations(varied: dict[str, "BaseDistribution"]) -> float:
    """How many there are: infinity where an interval is among the sweeps."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    count = 1.0
    for values in varied.values():
        if isinstance(values, CategoricalDistribution):
            count *= len(values.choices)
        else:
            count *= values.high - values.low + 1 if isinstance(values, IntDistribution) else math.inf
    return count
