"""A bar on a terminal, plain lines elsewhere."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from hardsoft.core import progress
from hardsoft.core.progress import Progress
from tests.support.repositories import ROOT

COUNT = """
from hardsoft.core.progress import Progress
with Progress("classify", 3, "skills") as progress:
    [progress.advance() for _ in range(3)]
"""


def test_without_a_terminal_there_is_a_last_line_and_occasional_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("classify", 3, "skills") as bar:
        for _ in range(3):
            bar.advance()
    printed = capsys.readouterr().err
    assert printed.startswith("classify: 3/3 skills, ")
    assert printed.endswith("/s, 0 s left\n")
    assert printed.count("\n") == 1
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress("classify", 3, "skills") as bar:
        for _ in range(3):
            bar.advance()
    assert capsys.readouterr().err.count("\n") == 3


def test_on_a_terminal_there_is_a_bar() -> None:
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows, columns
    subprocess.run([sys.executable, "-c", COUNT], stderr=terminal, check=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")})
    os.close(terminal)
    shown = os.read(master, 10_000).decode()
    assert "classify: 100%" in shown
    assert "3/3" in shown
