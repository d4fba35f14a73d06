"""Real repositories to test in: a copy of this working tree as a git and DVC repository of its own, with few skills."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Error, sync_playwright

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: more threads than those would be several times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
CHECKPOINT = "models/tiny/checkpoint"
BUILT = "models/smollm2/dvc."
"""The pipeline that builds smollm2: a repository that lacks what it builds cannot `dvc checkout` all."""
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
        inherited = {key: value for key, value in os.environ.items() if key not in ("HF_TOKEN", "OPENAI_API_KEY", "PYTHONPATH")}
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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as one commit, with the small export and the tiny model, and nothing run; not to be changed."""

    def build(path: Path) -> None:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "dvc.lock", BUILT)):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, path / name)
        repository = Repository(path)
        repository.write("data/raw/cv_skills.csv", small_export())
        repository.write("conf/config.yaml", repository.read("conf/config.yaml").replace("model: smollm2", "model: tiny"))
        repository.configure()
        repository.done("git", "init", "-q", "-b", "main")
        repository.done("git", "config", "user.name", "test")
        repository.done("git", "config", "user.email", "test@example.com")
        commit(repository)

    return built_once(tmp_path_factory, "template", build)


@pytest.fixture(scope="session")
def reproduced(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The template after one `dvc repro`, committed; with what that printed; not to be changed."""

    def build(path: Path) -> None:
        shutil.copytree(template, path / "repository")
        run = Repository(path / "repository").run("dvc", "repro")
        (path / "code").write_text(str(run.code), encoding="utf-8")
        (path / "output").write_text(run.output, encoding="utf-8")
        commit(Repository(path / "repository"))

    path = built_once(tmp_path_factory, "reproduced", build)
    run = Run(int((path / "code").read_text(encoding="utf-8")), (path / "output").read_text(encoding="utf-8"))
    return path / "repository", run


@pytest.fixture
def repository(reproduced: tuple[Path, Run], tmp_path: Path) -> Repository:
    """A repository of the test's own, in which `dvc repro` has run."""
    path = tmp_path / "repository"
    shutil.copytree(reproduced[0], path, symlinks=True)
    return Repository(path)


@pytest.fixture
def fresh(template: Path, tmp_path: Path) -> Repository:
    """A repository of the test's own, in which nothing has run."""
    path = tmp_path / "repository"
    shutil.copytree(template, path)
    return Repository(path)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A headless Chromium, the machine's own or playwright's; of one test, since playwright's event loop admits no other."""
    with sync_playwright() as playwright:
        own = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        try:
            launched = playwright.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no browser: {str(error).partition(chr(10))[0]}")
        yield launched
        launched.close()


def commit(repository: Repository) -> None:
    repository.done("git", "add", "-A")
    repository.done("git", "commit", "-q", "-m", "state")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def served() -> Iterator[str]:
    """The base URL of `transformers serve`, which runs the committed checkpoint."""
    port = free_port()
    transformers = str(Path(sys.executable).with_name("transformers"))
    command = [transformers, "serve", CHECKPOINT, "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, "transformers serve ended"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()
