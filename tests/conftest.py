"""Real repositories to test in: a copy of this working tree as a git and DVC repository of its own, with few skills."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tests.support.repositories import (
    ADAPTER,
    BUILT,
    CHECKPOINT,
    ROOT,
    Repository,
    Run,
    built_once,
    commit,
    free_port,
    small_export,
)
from tests.support.servers import JudgeHandler, serving

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: more threads than those would be several times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as one commit, with the small export and the tiny model, and nothing run; not to be changed."""

    def build(path: Path) -> None:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "metrics/", "dvc.lock", ADAPTER, BUILT)):
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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[JudgeHandler]]]:
    """A server that judges; the test runs in this repository."""
    state = {"seen": Counter(), "bodies": [], "keys": [], "takes": ("json_schema", "json_object", None), "delay": 0.0}
    state |= {"files": {}, "batches": {}, "fault": "", "polls": 1, "creation": ""}
    handler: type[JudgeHandler] = type("ThisTestsHandler", (JudgeHandler,), state)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("hardsoft.servers.client.FIRST_PAUSE_S", 0.001)
    with serving(handler) as (url, _):
        yield url, handler
