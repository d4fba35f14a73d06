"""How a sweep ends that is interrupted: its experiments too, and what DVC leaves of them goes.

Knows processes and the files by which jobs name them, not what an experiment does.
"""

import os
import platform
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import psutil

from hardsoft.core.progress import note
from hardsoft.sweep.job import PROCESS, STOPPED

PATIENCE = 60
"""Seconds that an interrupted experiment has to tidy up."""


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
    # DVC leaves the folder of an experiment that is interrupted while it is being set up. That path is DVC's own:
    # test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_else would notice another.
    if not any("exp" in process.info["cmdline"] and process.info["cwd"] == os.getcwd() for process in processes_of("dvc")):
        for path in Path(".dvc/tmp/exps/standalone").glob("tmp*"):
            shutil.rmtree(path, ignore_errors=True)


def end_as_by_ctrl_c() -> None:
    """Let the first SIGTERM or SIGHUP, which a closing terminal or a scheduler sends, be a KeyboardInterrupt; drop others."""
    heard = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:  # not under nohup, which ignores SIGHUP
        signal.signal(number, interrupt)


def processes_of(program: str) -> Iterator[psutil.Process]:
    """The processes on this machine that run a program, by name or as a Python module; `info` has cmdline and cwd."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if any(Path(word).name == program for word in process.info["cmdline"] or ()):
            yield process
