"""The OpenAI judge over real HTTP, against a server that speaks its protocol and misbehaves on request."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hardsoft.config.preflight import check_judge
from hardsoft.config.schema import OpenAIJudgeConfig, load_config
from hardsoft.core.errors import InputError
from hardsoft.engines import openai_client
from hardsoft.judging.base import JudgeOutcome, Verdict
from hardsoft.judging.llm import OpenAIJudge
from tests.conftest import ROOT

OPTION = OpenAIJudgeConfig(
    kind="openai",
    model="o3",
    api_key_env="OPENAI_API_KEY",
    reasoning_effort="low",
    max_completion_tokens=500,
    concurrency=4,
    max_error_share=0.0,
)


class Handler(BaseHTTPRequestHandler):
    """Answers by what the skill is called."""

    requests: list[dict[str, object]]
    seen: Counter[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(body)
        skill = body["messages"][-1]["content"].removeprefix("Skill: ")
        self.seen[skill] += 1
        if skill == "wrong key":
            return self.reply(401, {"error": {"message": "Incorrect API key provided"}})
        if skill == "busy once" and self.seen[skill] == 1:
            return self.reply(429, {"error": {"message": "slow down"}}, {"Retry-After": "0"})
        message: dict[str, object] = {"role": "assistant", "content": None, "refusal": None}
        finish_reason = "stop"
        if skill == "refused":
            message["refusal"] = "I will not."
        elif skill == "long":
            finish_reason, message["content"] = "length", '{"rationale": "It'
        elif skill == "filtered":
            finish_reason = "content_filter"
        elif skill == "nonsense":
            message["content"] = '{"rationale": "It is", "verdict": "Hardish"}'
        else:
            verdict = "Soft" if skill == "Empathy" else "Hard"
            message["content"] = json.dumps({"rationale": f"About {skill}.", "verdict": verdict})
        choices = [] if skill == "empty" else [{"index": 0, "finish_reason": finish_reason, "message": message}]
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "o3", "choices": choices, "usage": usage}
        return self.reply(200, completion)

    def reply(self, status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    handler = type("ThisTestsHandler", (Handler,), {"requests": [], "seen": Counter()})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{http.server_port}/v1")
    monkeypatch.setattr(openai_client, "FIRST_PAUSE_S", 0.001)
    yield handler
    http.shutdown()
    http.server_close()


def judge(skills: list[str]) -> list[Verdict]:
    verdicts: dict[int, Verdict] = {}
    OpenAIJudge(OPTION, "# Codebook", "a-planted-key").judge(skills, verdicts.__setitem__)
    return [verdicts[row] for row in range(len(skills))]


def test_verdicts_with_rationale_and_usage(server: type[Handler]) -> None:
    first, second = judge(["Empathy", "V-Ray"])
    assert first == Verdict("Soft", JudgeOutcome.ANSWERED, "About Empathy.", {"input_tokens": 100, "output_tokens": 20})  # type: ignore[arg-type]
    assert second.verdict == "Hard"


def test_the_judge_is_blind_and_gives_its_rationale_first(server: type[Handler]) -> None:
    judge(["V-Ray"])
    (request,) = server.requests
    assert json.dumps(request["messages"]).count("V-Ray") == 1
    assert "# Codebook" in json.dumps(request["messages"])
    schema = request["response_format"]["json_schema"]["schema"]  # type: ignore[index]
    assert list(schema["properties"]) == ["rationale", "verdict"]
    assert schema["properties"]["verdict"]["enum"] == ["Hard", "Soft", "Unknown"]


def test_what_is_no_verdict_is_an_outcome_of_its_row(server: type[Handler]) -> None:
    outcomes = [verdict.outcome for verdict in judge(["refused", "long", "filtered", "nonsense", "empty", "V-Ray"])]
    assert outcomes == ["refused", "truncated", "refused", "unparseable", "error", "answered"]


def test_a_busy_server_is_asked_again(server: type[Handler]) -> None:
    assert judge(["busy once"])[0].verdict == "Hard"
    assert server.seen["busy once"] == 2


def test_a_rejected_key_is_one_clear_error_without_the_key(server: type[Handler]) -> None:
    with pytest.raises(InputError, match=r"AuthenticationError.*Incorrect API key") as error:
        judge(["V-Ray", "wrong key"])
    assert "a-planted-key" not in str(error.value)


@pytest.mark.parametrize(("key", "message"), [(None, "missing: OPENAI_API_KEY"), ("x y", "OPENAI_API_KEY contains a blank")])
def test_no_or_an_impossible_key_is_one_clear_error(key: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    config = load_config().model_copy(update={"judge": OPTION})
    with pytest.raises(InputError, match=message):
        check_judge(config)


def test_an_address_with_a_password_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:planted-password@127.0.0.1:9/v1")
    with pytest.raises(InputError, match="OPENAI_BASE_URL holds a user name or password") as error:
        judge(["V-Ray"])
    assert "planted" not in str(error.value)
