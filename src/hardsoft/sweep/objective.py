"""The figure that a sweep compares: by its dotted key, of an experiment that is done, or checked before the first begins."""

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import dvc.api

from hardsoft.core.errors import InputError
from hardsoft.core.paths import ACCURACY_METRICS

SECTIONS = ("sample", "population", "judged", "judge", "reference", "always_hard", "confidence", "outcomes")
"""The first parts of the keys that there are."""


def figure(name: str, key: str) -> float | None:
    """A figure of an experiment's accuracy.json by its dotted key; None where it is not estimable.

    Raises:
        InputError: there is no such figure.
    """
    return figure_in(json.loads(dvc.api.read(ACCURACY_METRICS, rev=name)), key)


def figure_in(value: Any, key: str) -> float | None:
    """The same of what an accuracy.json holds."""
    known = sorted(_keys(value))
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"sweep.objective {key}: is no figure of {ACCURACY_METRICS}{_meant(key, known)}")
        value = value[part]
    if isinstance(value, dict | str):
        raise InputError(
            f"sweep.objective {key}: is no figure of {ACCURACY_METRICS}, but {value if isinstance(value, str) else list(value)}"
        )
    return None if value is None else float(value)


def check_objective(key: str) -> None:
    """Raise InputError for a key that no experiment will have, as far as the workspace's own figures tell."""
    path = Path(ACCURACY_METRICS)
    first = key.partition(".")[0]
    if first not in SECTIONS:
        raise InputError(f"sweep.objective {key}: is no figure of {ACCURACY_METRICS}{_meant(first, SECTIONS)}")
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    section: Any = values
    for part in key.split("."):
        section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and "reason" in section:  # not estimable here, and perhaps in an experiment
            return
    figure_in(values, key)


def _keys(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [key for name, child in value.items() for key in _keys(child, f"{prefix}.{name}".lstrip("."))]


def _meant(key: str, known: Any) -> str:
    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
