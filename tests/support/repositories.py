"""Repositories to test in, and what is read from them and written into them."""

import contextlib
import csv
import io
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest
from filelock import FileLock

from hardsoft.core.runner import run
from hardsoft.store.rows import default_path

ROOT = Path(__file__).parents[2]

CHECKPOINT = "models/tiny/checkpoint"

ADAPTER = "models/smollm2/adapter/"
"""Half of the working tree's bytes, of use to none but the pipeline that builds smollm2."""
BUILT = "models/smollm2/dvc."
"""The pipeline that builds smollm2: a repository that lacks what it builds cannot `dvc checkout` all."""

SECRETS = ("HF_TOKEN", "OPENAI_API_KEY")
"""Variables of whoever runs the tests that no test sees."""
SKILLS = 24
"""Distinct professional skills in the small export."""


@dataclass(frozen=True)
class Run:
    """A finished command."""

    code: int
    output: str

    @property
    def ran(self) -> list[str]:
        """The stages that DVC ran, in order."""
        return re.findall(r"Running stage '(\w+)'", self.output)


@dataclass(frozen=True)
class Repository:
    """A git and DVC repository on disk."""

    path: Path

    def run(self, *command: str, environment: dict[str, str] | None = None) -> Run:
        """Run a command in the repository with this interpreter's `dvc` and `python`."""
        inherited = {key: value for key, value in os.environ.items() if key not in (*SECRETS, "PYTHONPATH")}
        paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "src"}
        finished = subprocess.run(
            command,
            cwd=self.path,
            env=inherited | paths | (environment or {}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Run(finished.returncode, finished.stdout + finished.stderr)

    def done(self, *command: str) -> Run:
        """Run a command that must succeed."""
        run = self.run(*command)
        assert run.code == 0, run.output
        return run

    def stage(self, name: str, *options: str, environment: dict[str, str] | None = None) -> Run:
        """Run a stage as its process would, but in this one: the repository's own source must be as it was copied."""
        main = import_module(f"hardsoft.stages.{name}").main
        output = io.StringIO()
        code = 0
        with (
            contextlib.chdir(self.path),
            patch.dict(os.environ),
            patch.object(sys, "argv", [name, *options]),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            for secret in SECRETS:
                os.environ.pop(secret, None)
            os.environ |= environment or {}
            try:
                run(name, main)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                if isinstance(end.code, str):  # as Python itself prints it
                    print(end.code, file=output)
        return Run(code, output.getvalue())

    def staged(self, name: str, *options: str) -> Run:
        """Run a stage that must succeed in this process."""
        run = self.stage(name, *options)
        assert run.code == 0, run.output
        return run

    def configure(self, *overrides: str) -> None:
        """Compose params.yaml as `python -m hardsoft.config` does, without starting a process for it."""
        from hardsoft.config.compose import compose

        with contextlib.chdir(self.path):
            self.write("params.yaml", compose(list(overrides)))

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")


def small_export() -> str:
    """The sample's header and its first rows until there are SKILLS distinct professional skills."""
    header, *rows = (ROOT / "data/raw/cv_skills.csv").read_text(encoding="utf-8").splitlines()
    seen: set[str] = set()
    kept = []
    for row in rows:
        _, skill, kind = row.rsplit(";", 2)
        if kind == "Professional_Skill":
            seen.add(" ".join(skill.lower().split()))
        if len(seen) > SKILLS:
            break
        kept.append(row)
    return "\n".join([header, *kept, ""])


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder of the whole session: the first worker that needs it builds it, and the others wait."""
    root = factory.getbasetemp()
    path = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            build(path.with_suffix(".building"))
            path.with_suffix(".building").rename(path)
    return path


def commit(repository: Repository) -> None:
    repository.done("git", "add", "-A")
    repository.done("git", "commit", "-q", "-m", "state")


def header_and_rows(repository: Repository, name: str) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(repository.read(name).splitlines())
    return header, rows


def many_skills(rows: int) -> str:
    with open(ROOT / "data/reference/labels.csv", encoding="utf-8", newline="") as file:
        names = [row["skill"] for row in csv.DictReader(file)][:rows]
    return "skill,mentions\n" + "".join(f'"{name}",1\n' for name in names)


def stored(repository: Repository) -> int:
    path = repository.path / default_path()
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(path) as connection:
            ((rows,),) = connection.execute("SELECT count(*) FROM row").fetchall()
        connection.close()
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    return int(rows)


def whatever_holds(repository: Repository, secrets: Iterable[str]) -> list[str]:
    """Files of the work tree, caches included, and git objects that hold a secret."""
    git = ["git", "cat-file", "--batch-all-objects", "--batch"]
    contents = {"git's objects": subprocess.run(git, cwd=repository.path, capture_output=True, check=True).stdout}
    contents |= {str(path): path.read_bytes() for path in repository.path.rglob("*") if path.is_file()}
    return [name for name, content in contents.items() if any(secret.encode() in content for secret in secrets)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
