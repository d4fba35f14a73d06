"""From conf/ to the text of params.yaml, through DVC's own Hydra support; knows no meaning of any key."""

import tempfile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hardsoft.config.load import PARAMS, UNREADABLE, brought_up_to_date, load_yaml, validate
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError


def compose(overrides: list[str]) -> str:
    """Compose conf/ with Hydra overrides into the text of params.yaml; see `compose_and_tell`."""
    return compose_and_tell(overrides)[0]


def compose_and_tell(overrides: list[str]) -> tuple[str, list[str]]:
    """The same, through DVC's own Hydra support, and what of it options say in the words of an older version.

    Raises:
        InputError: an unknown option, group or key, or values that `Config` rejects.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException

    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder, PARAMS)
        try:
            compose_and_dump(params, str(Path("conf").absolute()), None, "config", "", overrides)
        except (HydraException, OmegaConfBaseException, YAMLError, *UNREADABLE) as error:
            problem, _, _ = str(error).partition("Config search path")
            for path in sorted(Path("conf").rglob("*.yaml")) if "Could not find" not in problem else ():
                load_yaml(str(path))
            raise InputError(f"conf/: {problem}") from None
        text = params.read_text(encoding="utf-8")
    values, changed = brought_up_to_date(OmegaConf.to_container(OmegaConf.create(text)))
    validate(values, "conf/")
    return OmegaConf.to_yaml(OmegaConf.create(values)) if changed else text, changed


def configuration(*overrides: str) -> Config:
    """conf/ with Hydra overrides, as stages read it from params.yaml.

    Raises:
        InputError: see `compose`.
    """
    return validate(OmegaConf.to_container(OmegaConf.create(compose(list(overrides)))), "conf/")


def drift(text: str) -> list[str]:
    """The keys, dotted and sorted, in which params.yaml differs from a composed text."""
    composed, current = _flatten(OmegaConf.to_container(OmegaConf.create(text))), _flatten(load_yaml(PARAMS))
    return sorted(key for key in composed.keys() | current.keys() if composed.get(key) != current.get(key))


def _flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value for name, child in values.items() for key, value in _flatten(child, f"{prefix}.{name}".lstrip(".")).items()
    }
