"""The same rows through Ray: on a real cluster of two nodes on this machine, whose workers and nodes die in the middle."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed")
import pyarrow as pa  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import hardsoft  # noqa: E402
from hardsoft.config.compose import configuration  # noqa: E402
from hardsoft.config.engines import RayEngineConfig  # noqa: E402
from hardsoft.config.machine import machine_on  # noqa: E402
from hardsoft.config.schema import Config  # noqa: E402
from hardsoft.core.chat import Chat, Completion  # noqa: E402
from hardsoft.core.errors import InputError  # noqa: E402
from hardsoft.engines.local.build import local_engine  # noqa: E402
from hardsoft.engines.ray.checkpoint import Checkpoint  # noqa: E402
from hardsoft.engines.ray.cluster import on_every_node  # noqa: E402
from hardsoft.engines.ray.engine import KILLED, RayEngine, ray_engine  # noqa: E402
from hardsoft.engines.ray.frame import Frame  # noqa: E402
from hardsoft.engines.ray.worker import Sender, Worker, write_answers  # noqa: E402
from hardsoft.prompting.prompts import read_prompt  # noqa: E402
from hardsoft.store.key import completion_setting  # noqa: E402
from tests.support.repositories import ROOT, Repository, many_skills, stored  # noqa: E402

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the nodes have no tests
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]
COMPLETIONS = "data/interim/completions.jsonl"


class Echo:
    """A worker without a model: it answers with the question, slowly, and dies at some of them. Its device is its process."""

    def __init__(self, frame: Frame, **_: object) -> None:
        self._frame = frame

    def __call__(self, table: pa.Table) -> pa.Table:
        questions = [chat[-1]["content"] for chat in self._frame.unpack(table)]
        time.sleep(0.005 * len(questions))
        if "poison" in questions:
            os._exit(1)
        here = ray.get_runtime_context()
        sender = Sender(here.get_actor_id(), here.get_node_id(), str(os.getpid()), 1.0)
        return write_answers(table["row"].to_pylist(), [Completion(question, "stop", 1) for question in questions], sender)


def configured(*overrides: str) -> Config:
    return configuration("model=tiny", "engine=ray", *overrides)


def opened(config: Config, rows: int, worker: type = Worker) -> contextlib.AbstractContextManager[RayEngine]:
    return ray_engine(config, machine_on(config, "cpu"), rows, worker)


def chats(count: int) -> Iterator[Chat]:
    for number in range(count):
        yield [{"role": "system", "content": "All of them begin like this."}, {"role": "user", "content": f"Skill {number}"}]


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    two = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        two.add_node(num_cpus=1)
        two.wait_for_nodes()
        yield two
    finally:
        two.shutdown()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.chdir(ROOT)
    with running() as two:
        yield two


def answered(
    engine: RayEngine, questions: Iterator[Chat], watch: Callable[[int], None] = lambda count: None
) -> dict[int, Completion]:
    rows: dict[int, Completion] = {}

    def on_results(results: list[tuple[int, Completion]]) -> None:
        assert not {row for row, _ in results} & set(rows), "a row came twice"
        rows.update(results)
        watch(len(rows))

    engine.complete(questions, on_results)
    return rows


def test_chats_travel_without_what_they_have_in_common() -> None:
    some = list(enumerate(chats(50)))
    frame = Frame([chat for _, chat in some[:20]])
    odd: tuple[int, Chat] = (50, [{"role": "user", "content": "It begins otherwise: ünï"}])
    packed = frame.pack([*some, odd])
    assert frame.unpack(packed) == [*(chat for _, chat in some), odd[1]]
    assert max(len(text) for text in packed["text"].to_pylist()[:50]) < 10


@pytest.mark.parametrize("prompt", ["cot", "label_only"])
def test_it_answers_as_the_local_engine_does(cluster: Cluster, prompt: str) -> None:
    config = configured(f"prompt={prompt}", f"engine.address={cluster.address}", "engine.batch_size=20")
    local = configuration("model=tiny", f"prompt={prompt}")
    assert completion_setting(config, machine_on(config, "cpu")) == completion_setting(local, machine_on(local, "cpu"))
    asked = [read_prompt(config.prompt).messages(f"Skill {number}") for number in range(90)]
    expected: dict[int, Completion] = {}
    local_engine(local, machine_on(local, "cpu")).complete(asked, expected.update)
    with opened(config, len(asked)) as engine:
        found = answered(engine, iter(asked))
        assert engine.workers == ["cpu", "cpu"]
        assert engine.peak_memory_mb > 200
    for row in range(90):
        assert replace(found[row], probabilities=None) == replace(expected[row], probabilities=None)
        assert found[row].probabilities == pytest.approx(expected[row].probabilities, abs=1e-4)


def test_a_killed_worker_and_a_lost_node_lose_no_row(cluster: Cluster) -> None:
    lost: list[object] = []
    with opened(configured(f"engine.address={cluster.address}", "engine.batch_size=20"), 2000, Echo) as engine:

        def watch(count: int) -> None:
            if count > 200 and not lost:
                lost.append(int(engine.workers[0]))
                os.kill(int(engine.workers[0]), signal.SIGKILL)
            if count > 900 and len(lost) == 1:
                lost.append(cluster.worker_nodes.copy().pop())
                cluster.remove_node(lost[1], allow_graceful=False)  # type: ignore[arg-type]

        found = answered(engine, chats(2000), watch)
        assert len(lost) == 2
        assert len(engine.workers) == 1
    assert [found[row].text for row in range(2000)] == [f"Skill {row}" for row in range(2000)]


def test_a_row_that_kills_its_worker_is_an_error_and_takes_no_other_along(cluster: Cluster) -> None:
    def questions() -> Iterator[Chat]:
        for number, chat in enumerate(chats(300)):
            yield [chat[0], {"role": "user", "content": "poison"}] if number == 150 else chat

    with opened(configured(f"engine.address={cluster.address}", "engine.batch_size=20"), 300, Echo) as engine:
        found = answered(engine, questions())
    assert found.pop(150) == Completion(KILLED, "error", 0)
    assert {row: one.text for row, one in found.items()} == {row: f"Skill {row}" for row in range(300) if row != 150}


def test_a_killed_driver_asks_only_for_what_is_not_stored(fresh: Repository) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(240))
    fresh.configure("engine=local", "engine.processes=1")
    fresh.done("python", "-m", "hardsoft.stages.classify", "--no-store")
    expected = fresh.read(COMPLETIONS)
    with running() as two:
        fresh.configure("engine=ray", f"engine.address={two.address}", "engine.batch_size=16")
        environment = os.environ | {"PYTHONPATH": "src"}
        run = subprocess.Popen([sys.executable, "-m", "hardsoft.stages.classify"], cwd=fresh.path, env=environment)
        while not stored(fresh):
            assert run.poll() is None, "the run ended before it was killed"
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
        kept = stored(fresh)
        assert 0 < kept < 240
        fresh.done("python", "-m", "hardsoft.stages.classify")
    throughput = json.loads(fresh.read("metrics/throughput.json"))
    assert (throughput["stored"], throughput["workers"], throughput["device"]) == (kept, 2, "cpu")
    assert fresh.read(COMPLETIONS) == expected
    fresh.configure("engine=local")
    fresh.done("python", "-m", "hardsoft.stages.classify")
    assert json.loads(fresh.read("metrics/throughput.json"))["stored"] == 240, "what one has computed the other finds"


def test_ray_on_this_machine_as_one_command(fresh: Repository) -> None:
    fresh.done("dvc", "exp", "run", "--queue", "-S", "engine=ray", "-S", "engine.workers=1", "--name", "queued")
    run = fresh.done("dvc", "queue", "start", "-j", "1")
    for _ in range(240):
        if "Running" not in (status := fresh.done("dvc", "queue", "status").output) and "Queued" not in status:
            break
        time.sleep(1)
    assert "Success" in status, run.output + fresh.run("dvc", "queue", "logs", "queued").output
    assert "ray: nodes 1, workers up to 1" in fresh.run("dvc", "queue", "logs", "queued").output


def test_the_program_and_the_checkpoint_travel(cluster: Cluster, tmp_path: Path) -> None:
    def program() -> str:
        return str(hardsoft.__file__)

    folder = tmp_path / "mine"
    shutil.copytree(ROOT / "models/tiny/checkpoint", folder)
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    config = configured(f"engine.address={cluster.address}", "prompt=label_only", f"model.name={folder}", f"model.dep={folder}")
    with opened(config, 10):
        for path in on_every_node(program).values():
            assert "runtime_resources" in path, "a worker runs the program of the driver's folder"
        checkpoint = Checkpoint(str(folder))
        assert all(on_every_node(Checkpoint.lies_here, checkpoint).values())
        (folder / "config.json").write_bytes(expected["config.json"] + b" ")
        assert not any(on_every_node(Checkpoint.lies_here, checkpoint).values()), "files of the same names are not enough"
        shutil.rmtree(folder)
        assert isinstance(config.engine, RayEngineConfig)
        engine = RayEngine(
            Worker,
            {"config": config, "machine": machine_on(config, "cpu"), "checkpoint": checkpoint, "libraries": {}},
            config.engine,
            (1, 1),
            20,
        )
        with pytest.raises(InputError, match="does not see this folder"):
            answered(engine, chats(10))
        for name, content in expected.items():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        checkpoint.send()
        shutil.rmtree(folder)
        assert len(answered(engine, chats(10))) == 10
        (copy,) = {Path(copy) for copy in on_every_node(Checkpoint.local_folder, checkpoint).values()}
        assert copy.name == folder.name, "it is part of the weights' identity"
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine.workers=3"], "3 wanted, and the cluster has room for 2 with"),
        (["engine.num_cpus=2"], r"1 wanted, and the cluster has room for 0 with engine\.num_cpus 2"),
        (
            ["engine.num_gpus=1", "engine.batch_size=64", "quantization.dequantize=false"],
            r"room for 0 with engine\.num_cpus 1 and engine\.num_gpus 1 each",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(cluster: Cluster, overrides: list[str], message: str) -> None:
    with (
        pytest.raises(InputError, match=message),
        opened(configured(*overrides, f"engine.address={cluster.address}"), 10, Echo),
    ):
        pass


def test_a_cluster_that_does_nothing_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardsoft.engines.ray.engine.IDLE_S", 1.0)
    with opened(configured(f"engine.address={cluster.address}"), 10, Echo) as engine:
        assert isinstance(engine._wait(queue.Queue()), TimeoutError)
        assert len(answered(engine, chats(10))) == 10


def test_a_node_with_other_libraries_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "tokenizers-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenizers\nVersion: 0.0.1\n", encoding="utf-8")
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})
    cluster.wait_for_nodes()
    with (
        pytest.raises(InputError, match=r"tokenizers 0\.0\.1 instead of .*; install the same versions everywhere"),
        opened(configured(f"engine.address={cluster.address}"), 10, Echo),
    ):
        pass


def test_a_worker_that_cannot_load_the_model_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "models/tiny/checkpoint", tmp_path / "broken")
    (tmp_path / "broken/model.safetensors").write_bytes(b"nothing")
    config = configured(f"engine.address={cluster.address}", f"model.name={tmp_path}/broken", f"model.dep={tmp_path}/broken")
    with pytest.raises(InputError, match=r"on node"), opened(config, 10) as engine:
        engine.complete(chats(10), lambda results: None)


def test_ray_is_not_installed(fresh: Repository) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(3))
    fresh.write("src/ray.py", "raise ImportError(\"No module named 'ray'\")\n")
    fresh.configure("engine=ray")
    run = fresh.run("python", "-m", "hardsoft.stages.classify")
    line = "classify: engine=ray needs Ray (No module named 'ray'); pip install -c constraints.txt -e '.[ray]'\n"
    assert (run.code, run.output) == (1, line)


def test_no_cluster_answers(fresh: Repository) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(3))
    fresh.configure("engine=ray", "engine.address=127.0.0.1:1")
    run = fresh.run("python", "-m", "hardsoft.stages.classify")
    assert run.code == 1
    assert [line for line in run.output.splitlines() if line.startswith("classify: engine.address 127.0.0.1:1")]
    assert "Traceback" not in run.output
