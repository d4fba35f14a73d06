"""The names of sweeps: no two that run have the same, and that of one whose process died is free again.

Knows the folder of a sweep, and processes; not what a sweep does.
"""

import os
import platform
import re
import time
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock

from hardsoft.core.errors import InputError
from hardsoft.sweep.git import run_git
from hardsoft.sweep.job import FOLDER, OUTCOME, PROCESS, STOPPED

CLAIM = "claim"
"""The file that names the process whose sweep it is: its node, its number and when it began."""
CLOCKS = 2.0
"""Seconds by which a process' start and a file's time may differ."""


def name_given(overrides: list[str]) -> str | None:
    """The name that the overrides give a sweep, without quotes; None for the time."""
    names = [override.partition("=")[2] for override in overrides if is_name(override)]
    name = names[-1].strip().strip("'\"") if names else ""
    return None if name in ("", "null") else name


def is_name(override: str) -> bool:
    """Whether an override names the sweep."""
    return override.lstrip("+").startswith("sweep.name=")


def claim(given: str | None) -> str:
    """The name of a sweep that no other has, now or before; until `release`, or the end of this process.

    Raises:
        InputError: the given one is taken.
    """
    name = given or f"{time.strftime('%m%d-%H%M%S')}-{os.getpid()}"
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?", name) or ".." in name:
        raise InputError(f"sweep.name={name}: letters, digits, dashes and dots can name an experiment")
    taken = [ref for ref in (run_git("for-each-ref", "--format=%(refname)", "refs/exps") or "").split() if f"/{name}-" in ref]
    if taken:
        raise InputError(
            f"sweep.name={name}: there is an experiment {taken[0].rpartition('/')[2]}; take another name or remove it"
        )
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "claims.lock"):
        if runs(folder):
            raise InputError(f"sweep.name={name}: a sweep of that name runs")
        for path in [*folder.glob(f"*/{OUTCOME}"), *folder.glob(f"*/{PROCESS}"), folder / STOPPED]:
            path.unlink(missing_ok=True)
        began = psutil.Process().create_time()
        (folder / CLAIM).write_text(f"{platform.node()} {os.getpid()} {began}", encoding="utf-8")
    return name


def release(name: str) -> None:
    """Free the name of a sweep that has ended."""
    (FOLDER / name / CLAIM).unlink(missing_ok=True)


def runs(folder: Path) -> bool:
    """Whether a sweep's process or one of its experiments is alive; on another node, whether it has not ended by itself."""
    for path in [folder / CLAIM, *folder.glob(f"*/{PROCESS}")]:
        with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
            node, pid, *began = path.read_text(encoding="utf-8").split()
            if node != platform.node():
                return True
            process = psutil.Process(int(pid))
            latest = float(began[0]) if began else path.stat().st_mtime  # a later process only has the same number
            if process.create_time() <= latest + CLOCKS and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
