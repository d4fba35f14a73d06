"""The server engine over real HTTP: against `transformers serve` with the committed model, and against a server of faults."""

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hardsoft.config.schema import ServerEngineConfig
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.engines import openai_client
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.server import ServerEngine
from tests.conftest import ROOT, Repository
from tests.test_engine import model, prompt, some_skills, text

CHECKPOINT = "models/embedded/checkpoint"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def option(base_url: str, **options: Any) -> ServerEngineConfig:
    usual = {"kind": "server", "model": "m", "concurrency": 4, "timeout_s": 1.0, "max_retries": 2, "prefill": True}
    return ServerEngineConfig(base_url=base_url, **{**usual, **options})


def complete(option: ServerEngineConfig, skills: list[str], name: str = "cot") -> list[Completion]:
    completions: dict[int, Completion] = {}
    ServerEngine(option, 60).complete([prompt(name).messages(skill) for skill in skills], completions.update)
    return [completions[row] for row in range(len(skills))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
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


@pytest.mark.xdist_group("served")
def test_a_real_server_writes_what_the_local_engine_writes(served: str) -> None:
    skills = some_skills(60)
    local: dict[int, Completion] = {}
    LocalEngine(*model(), 64, 60).complete([prompt("zero_shot").messages(skill) for skill in skills], local.update)
    remote = complete(option(served, model=CHECKPOINT, prefill=False, timeout_s=60.0), skills, "zero_shot")
    assert [text(one) for one in remote] == [text(local[row]) for row in range(len(skills))]
    assert all(one.probabilities is None for one in remote)


@pytest.mark.xdist_group("served")
@pytest.mark.parametrize("options", [{"model": "another"}, {"model": CHECKPOINT, "prefill": True}])
def test_what_a_real_server_refuses_is_one_clear_line(served: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"127\.0\.0\.1.*(BadRequest|Unprocessable).*HTTP 4") as error:
        complete(option(served, timeout_s=60.0, **options), ["V-Ray", "Empathy"])
    assert "\n" not in str(error.value)


@pytest.mark.xdist_group("served")
def test_the_whole_stage_against_a_real_server(served: str, repository: Repository) -> None:
    overrides = ["engine=server", f"engine.base_url={served}", "engine.prefill=false", "prompt=zero_shot"]
    repository.configure(*overrides)
    repository.done("python", "-m", "hardsoft.stages.classify")
    rows = [json.loads(line) for line in repository.read("data/interim/completions.jsonl").splitlines()]
    assert {row["finish_reason"] for row in rows} == {"stop"}
    first = json.loads(repository.read("metrics/throughput.json"))
    assert (first["stored"], first["tokens"]) == (0, sum(row["tokens"] for row in rows))
    repository.done("python", "-m", "hardsoft.stages.classify")
    assert json.loads(repository.read("metrics/throughput.json"))["stored"] == len(rows)


class Handler(BaseHTTPRequestHandler):
    """Fails by what the skill is called, for so many requests as its number says."""

    protocol_version = "HTTP/1.1"
    seen: Counter[str]
    bodies: list[dict[str, Any]]
    stop: threading.Event

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        fault, _, times = body["messages"][1]["content"].rpartition("Skill: ")[2].partition(" x")
        self.seen[fault] += 1
        if not times or self.seen[fault] > int(times):
            return self.reply(200, completion(f" fine after {self.seen[fault]}\nAnswer: Hard"))
        if fault == "busy":
            return self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"})
        if fault == "broken":
            return self.reply(500, {"error": {"message": "internal"}})
        if fault == "hung":
            self.stop.wait(5)
            self.close_connection = True
            return None
        if fault == "half":
            content = json.dumps(completion("x")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        if fault == "no json":
            return self.reply(200, '{"id": "1", "choices": [{"mess')
        if fault == "page":
            return self.reply(200, "<html>gateway</html>", {"Content-Type": "text/html"})
        if fault == "empty":
            return self.reply(200, {**completion(""), "choices": []})
        if fault == "filtered":
            return self.reply(200, completion("", "content_filter"))
        if fault == "too long":
            return self.reply(400, {"error": {"message": "the context is too long"}})
        if fault == "refused":
            return self.reply(400, {"error": {"message": "against the policy", "code": "content_filter"}})
        status = {"key": 401, "model": 404}[fault]
        return self.reply(status, {"error": {"message": f"wrong {fault}, you sent {self.headers['Authorization']}"}})

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def completion(content: str, finish_reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def faulty() -> Iterator[tuple[str, type[Handler]]]:
    stop = threading.Event()
    handler: type[Handler] = type("ThisTestsHandler", (Handler,), {"seen": Counter(), "bodies": [], "stop": stop})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1", handler
    stop.set()
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize("fault", ["busy", "broken", "hung", "half", "no json", "page", "empty"])
def test_passing_faults_are_waited_out(faulty: tuple[str, type[Handler]], fault: str) -> None:
    begin = time.monotonic()
    (one,) = complete(option(faulty[0]), [f"{fault} x1"])
    assert text(one) == ("Step 1: fine after 2\nAnswer: Hard", "stop", 7)
    if fault == "busy":
        assert time.monotonic() - begin >= 0.2


@pytest.mark.parametrize("fault", ["busy", "broken", "half", "no json", "page", "empty", "filtered", "too long"])
def test_lasting_faults_are_the_rows_own(faulty: tuple[str, type[Handler]], fault: str) -> None:
    """The rows before and after it are there; the row itself is an error that says why."""
    good, bad, other = complete(option(faulty[0], concurrency=1), ["good", f"{fault} x99", "other"])
    assert (good.finish_reason, other.finish_reason) == ("stop", "stop")
    assert bad.finish_reason == "error"
    assert bad.text
    assert "\n" not in bad.text


def test_questions_refused_one_by_one_are_errors_though_nothing_else_was_asked(faulty: tuple[str, type[Handler]]) -> None:
    refused = complete(option(faulty[0]), [f"refused x{9999 + number}" for number in range(30)])
    assert {one.finish_reason for one in refused} == {"error"}
    assert "content_filter" in refused[0].text


def test_a_request_asks_to_go_on_from_the_prefill_greedily(faulty: tuple[str, type[Handler]]) -> None:
    complete(option(faulty[0]), ["V-Ray"])
    complete(option(faulty[0], prefill=False), ["V-Ray"])
    with_prefill, without = faulty[1].bodies
    assert with_prefill["messages"] == prompt("cot").messages("V-Ray")
    assert with_prefill["continue_final_message"] is True
    assert with_prefill["add_generation_prompt"] is False
    assert without["messages"] == prompt("cot").messages("V-Ray")[:-1]
    assert "continue_final_message" not in without
    assert [(body["temperature"], body["max_tokens"], body["model"]) for body in (with_prefill, without)] == [(0, 60, "m")] * 2


@pytest.mark.parametrize("fault", ["key", "model"])
def test_a_wrong_key_or_model_ends_the_run_in_one_line(
    faulty: tuple[str, type[Handler]], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-planted-key")
    with pytest.raises(InputError, match=f"HTTP 40[14].*wrong {fault}") as error:
        complete(option(faulty[0]), ["good", f"{fault} x99"])
    assert "a-planted-key" not in str(error.value)


def test_a_server_that_is_down_ends_the_run_in_one_line() -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:\d+/v1: APIConnectionError"):
        complete(option(f"http://127.0.0.1:{free_port()}/v1", max_retries=1), ["V-Ray"])


def test_a_server_that_never_answers_well_is_given_up(faulty: tuple[str, type[Handler]]) -> None:
    with pytest.raises(InputError, match="20 questions failed before any was answered"):
        complete(option(faulty[0], max_retries=0), [f"broken x{9999 + number}" for number in range(60)])
    assert faulty[1].seen["broken"] <= 30


def test_rows_that_fail_are_errors_of_the_stage_and_asked_again(
    faulty: tuple[str, type[Handler]], repository: Repository
) -> None:
    """Counted, not stored; the next run asks for them alone."""
    skills = "skill,mentions\nbroken x4,1\ngood,1\nother,1\n"
    repository.write("data/interim/skills.csv", skills)
    overrides = ["engine=server", f"engine.base_url={faulty[0]}", "engine.max_retries=1", "engine.concurrency=1"]
    repository.configure(*overrides)
    run = repository.done("python", "-m", "hardsoft.stages.classify")
    assert "note: 1 of 3 rows failed (InternalServerError: HTTP 500" in run.output
    repository.done("python", "-m", "hardsoft.stages.clean")
    assert json.loads(repository.read("metrics/labels.json"))["outcomes"]["error"] == 1
    assert "broken x4,Unknown,error,1" in repository.read("data/processed/labels.csv")
    asked = len(faulty[1].bodies)
    repository.done("python", "-m", "hardsoft.stages.classify")
    assert [body["messages"][1]["content"].rpartition("Skill: ")[2] for body in faulty[1].bodies[asked:]] == ["broken x4"] * 2
    repository.done("python", "-m", "hardsoft.stages.classify")
    repository.done("python", "-m", "hardsoft.stages.clean")
    assert json.loads(repository.read("metrics/labels.json"))["outcomes"]["error"] == 0


def test_a_run_that_a_server_ends_keeps_its_rows(faulty: tuple[str, type[Handler]], repository: Repository) -> None:
    repository.write("data/interim/skills.csv", "skill,mentions\ngood,1\nkey x1,1\nother,1\n")
    overrides = ["engine=server", f"engine.base_url={faulty[0]}", "engine.concurrency=1"]
    repository.configure(*overrides)
    run = repository.run("python", "-m", "hardsoft.stages.classify")
    assert run.code == 1
    (line,) = [line for line in run.output.splitlines() if line.startswith("classify: http")]
    assert "HTTP 401" in line
    assert "Traceback" not in run.output
    repository.done("python", "-m", "hardsoft.stages.classify")
    assert faulty[1].seen["good"] == 1
    assert faulty[1].seen["key"] == 2
