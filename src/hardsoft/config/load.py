"""Reading params.yaml and option files, with the line or key that is wrong; and what options said before. Knows no Hydra."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from hardsoft.config.fields import Section
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError
from hardsoft.core.files import read_text
from hardsoft.core.paths import NO_LABELS, NO_READOUT

PARAMS = "params.yaml"
UNREADABLE = (ValueError, KeyError, AttributeError, AssertionError, RecursionError, OSError)
"""What YAML's and OmegaConf's readers raise, beside their own errors, at files that hold something else."""
REMOVED = (("model", "readout_dep"),)
"""Keys of older options."""
EMPTY_FILES = {("model", "readout"): NO_READOUT, ("sample", "baseline"): NO_LABELS, ("sample", "dep"): NO_LABELS}
"""What is written where older options say null: a stage's dependency cannot be null."""


def load_config(path: str = PARAMS) -> Config:
    """Read and validate a params file.

    Raises:
        InputError: the file is missing, or a key is unknown, missing, left at `???` or of a wrong type.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; write it with `python -m hardsoft.config`")
    return validate(load_yaml(path), path)


def load_yaml(path: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: it is no valid YAML in UTF-8, names a key twice, or holds something else than keys.
    """
    text = read_text(path)
    try:
        loaded = OmegaConf.create(text)
    except (YAMLError, OmegaConfBaseException, *UNREADABLE) as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: {_line_of(error, text)}not valid YAML: {problem}") from None
    if not OmegaConf.is_dict(loaded):
        raise InputError(f"{path}: expected keys and values, found something else")
    try:
        values: dict[str, Any] = OmegaConf.to_container(loaded, resolve=path == PARAMS)  # type: ignore[assignment]
    except (OmegaConfBaseException, *UNREADABLE) as error:
        raise InputError(f"{path}: {str(error).partition(chr(10))[0]}") from None
    return values


def _sections(base: type[Section]) -> Iterator[type[Section]]:
    """All kinds of sections, those that extend others too."""
    for section in base.__subclasses__():
        yield section
        yield from _sections(section)


def _line_of(error: Exception, text: str) -> str:
    """Where a YAML fault is: where what was not ended began, else where it was noticed."""
    position = getattr(error, "position", None)
    if isinstance(position, int):
        return f"line {text.count(chr(10), 0, position) + 1}: "
    begun = any(word in (getattr(error, "context", None) or "") for word in ("scanning", "flow"))
    mark = (begun and getattr(error, "context_mark", None)) or getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: " if mark else ""


def validate(values: Any, path: str) -> Config:
    """Check composed values against `Config`; errors name the file, the key and what would be right."""
    try:
        return TypeAdapter(Config).validate_python(brought_up_to_date(values)[0])
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise InputError(f"{path}: {'; '.join(problems)}") from None


def brought_up_to_date(values: Any) -> tuple[Any, list[str]]:
    """Composed values without keys that are no more, and with the empty file where null said none; and what was changed."""
    values, changed = copy.deepcopy(values), []
    for section, key in REMOVED:
        if isinstance(values, dict) and key in (values.get(section) or {}):
            del values[section][key]
            changed.append(f"{section}.{key} is no more")
    for (section, key), empty in EMPTY_FILES.items():
        if isinstance(values, dict) and (values.get(section) or {}).get(key, empty) is None:
            values[section][key] = empty
            changed.append(f"{section}.{key}: null is {empty} now")
    return values, changed


def outdated_options(folder: str) -> list[str]:
    """The option files that say null where an empty file is meant, which DVC takes for a fault before anybody can tell."""
    found = []
    for (section, key), empty in EMPTY_FILES.items():
        for path in sorted(Path(folder).rglob("*.yaml")):
            values: Any = load_yaml(str(path))
            if path.parent.name != section:
                values = values.get(section) or {}
            if isinstance(values, dict) and values.get(key, empty) is None:
                found.append(f"{path}: {key} is null; write {empty}, or leave it out")
    return found


def _describe(problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    if where[:1] and where[0] in ("engine", "judge", "sample"):
        del where[1:2]  # which of the kinds of this section it was checked against
    if problem["type"] != "extra_forbidden":
        fields = {name for section in _sections(Section) for name in section.model_fields}
        where = [part for part in where if part in fields]  # without the types of a union that were tried
    key = ".".join(where)
    if problem["input"] == "???":
        return f"{key}: needs a value (it is left at ???)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    given = "" if isinstance(problem["input"], dict) or problem["type"] == "password" else f" (it is {problem['input']!r})"
    message = f"{problem['msg'].removeprefix('Value error, ')}{given}"
    return f"{key}: {message}" if key else message
