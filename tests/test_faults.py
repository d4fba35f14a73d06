"""What servers do wrong, and what that means for a run: over real HTTP, by a server that does what a test says."""

import asyncio
import base64
import json
import random
import re
import resource
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.chat import ChatCompletion

from hardsoft.config.compose import compose, configuration
from hardsoft.config.engines import ServerEngineConfig
from hardsoft.core.errors import InputError
from hardsoft.core.secrets import mask
from hardsoft.engines.fleet import Fleet
from hardsoft.engines.server import ServerEngine
from hardsoft.servers import client
from hardsoft.servers.client import Server
from hardsoft.servers.replies import MalformedReplyError, Reply, UnusableReplyError, Usage, read_reply
from hardsoft.servers.transport import SPARE_FILES, allow_connections
from hardsoft.store.rows import _digest, canonical, default_path
from tests.support.repositories import Repository
from tests.support.servers import completion, serving

KEY = "sk-planted/Key+4711=x"
Answer = tuple[int, Any]
"""Status and body."""
Script = Callable[[str, int], Answer | None]
"""What a server replies to a question that was asked so often; None cuts the connection."""


class Scripted(BaseHTTPRequestHandler):
    """Does what its script says."""

    protocol_version = "HTTP/1.1"
    script: Script
    seen: Counter[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = (body.get("messages") or body["input"])[-1]["content"]
        self.seen[question] += 1
        answer = type(self).script(question, self.seen[question])
        if answer is None:
            self.close_connection = True
            return
        status, content = answer[0], answer[1] if isinstance(answer[1], str) else json.dumps(answer[1])
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted(script: Script) -> Iterator[tuple[str, Counter[str]]]:
    """A server's address, and how often it was asked each question."""
    seen = Counter[str]()
    with serving(type("ThisTestsServer", (Scripted,), {"script": staticmethod(script), "seen": seen})) as (url, _):
        yield url, seen


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def good(question: str, times: int) -> Answer:
    return 200, completion(f"about {question}")


def asked(
    url: str, questions: list[str], may_fail: int = 0, **options: Any
) -> tuple[dict[int, Reply], dict[int, str], str | None]:
    """The replies, the failures, and what ended the run, if anything did."""
    server = Server(url, **{"key": KEY, "concurrency": 4, "timeout_s": 5.0, "max_retries": 0, **options})
    replies: dict[int, Reply] = {}
    failures: dict[int, str] = {}

    async def ask(question: str) -> Reply:
        return await server.chat(60, model="m", messages=[{"role": "user", "content": question}])

    try:
        asyncio.run(server.ask_all(questions, ask, replies.__setitem__, failures.__setitem__, may_fail))
    except InputError as error:
        return replies, failures, str(error)
    return replies, failures, None


def mutated(value: Any, draw: random.Random) -> Any:
    """A reply with something else in one of its places."""
    odd: list[Any] = [
        None,
        "text",
        -1,
        1.5,
        float("nan"),
        True,
        [],
        {},
        [None],
        {"a": 1},
        "ü\ud800",
        10**30,
        [[]],
        {"type": None},
    ]
    if not isinstance(value, dict | list) or not value or draw.random() < 0.25:
        return draw.choice(odd)
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    place: Any = draw.choice(list(changed)) if isinstance(changed, dict) else draw.randrange(len(changed))
    if isinstance(changed, dict) and draw.random() < 0.1:
        del changed[place]
    else:
        changed[place] = mutated(changed[place], draw)
    return changed


def test_no_reply_whatever_is_a_traceback() -> None:
    draw, kinds = random.Random(0), Counter[str]()
    tokens = [{"token": "Hard", "logprob": -0.1, "bytes": [72], "top_logprobs": [{"token": "Hard", "logprob": -0.1}]}]
    usual = completion("Answer: Hard", reasoning_content=None, refusal=None)
    usual["choices"][0]["logprobs"] = {"content": tokens, "refusal": None}
    usual["usage"] |= {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    for _ in range(2000):
        body = mutated(usual, draw)
        try:
            reply = read_reply(construct_type(value=body, type_=ChatCompletion))  # type: ignore[arg-type]
        except (MalformedReplyError, UnusableReplyError):
            kinds["none"] += 1
        else:
            kinds["reply"] += 1
            counts = (reply.usage.input, reply.usage.cached_input, reply.usage.output, reply.usage.reasoning)
            assert all(type(count) is int and count >= 0 for count in counts)
            json.dumps({"text": reply.text, "model": reply.model, "tokens": reply.first_token}, allow_nan=False).encode()
    assert min(kinds.values()) > 200


ODD = {
    "a null choice": {**completion("x"), "choices": [None]},
    "a text for a message": {**completion("x"), "choices": [{"index": 0, "finish_reason": "stop", "message": "text"}]},
    "a list": [1, 2],
    "deep": "[" * 100_000 + "]" * 100_000,
    "nothing": "",
}


def test_an_odd_reply_is_its_questions_own_failure() -> None:
    def script(question: str, times: int) -> Answer:
        return (200, ODD[question]) if question in ODD else good(question, times)

    with scripted(script) as (url, seen):
        replies, failures, end = asked(url, ["first", *ODD, "last"], max_retries=1)
    assert (sorted(replies), sorted(failures), end) == ([0, len(ODD) + 1], list(range(1, len(ODD) + 1)), None)
    assert all(seen[name] == 2 for name in ODD), "asked once more"


@pytest.mark.parametrize("count", [float("nan"), {"a": 1}, "many", -5, 1.5, True, None])
def test_counts_that_are_no_numbers_of_tokens_are_0(count: Any) -> None:
    assert Usage.of({"input": count, "cached_input": 3, "output": 7, "reasoning": count}) == Usage(0, 0, 7, 0)
    assert Usage.of({"input": 5, "cached_input": 9, "output": 7.0}) == Usage(5, 5, 7, 0), "no more cached than read"


def test_failures_that_may_be_end_no_run_not_even_where_nothing_else_is_left() -> None:
    with scripted(lambda question, times: (418, {"error": {"message": "a teapot"}})) as (url, _):
        _, failures, end = asked(url, list("abcd"), may_fail=6)
        assert (len(failures), end) == (4, None)
        _, failures, end = asked(url, list("abcd"), may_fail=1)
    assert len(failures) == 1
    assert "2 questions failed before any was answered, the last by APIStatusError: HTTP 418" in str(end)


def test_an_empty_purse_ends_the_run_at_once_and_what_was_paid_is_kept() -> None:
    empty = 429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    with scripted(lambda question, times: good(question, times) if int(question) < 20 else empty) as (url, seen):
        replies, _, end = asked(url, [str(number) for number in range(120)])
    assert len(replies) == 20
    assert "insufficient_quota" in str(end)
    assert sum(count for question, count in seen.items() if int(question) >= 20) <= 4


@pytest.mark.parametrize("may_fail", [0, 5])
def test_a_server_that_stops_answering_in_the_middle_is_given_up(may_fail: int) -> None:
    broken = 500, {"error": {"message": "internal"}}
    with scripted(lambda question, times: good(question, times) if int(question) < 20 else broken) as (url, seen):
        replies, failures, end = asked(url, [str(number) for number in range(300)], may_fail)
    assert len(replies) == 20
    assert "11 questions in a row failed" in str(end)
    assert len(seen) <= 20 + 11 + 4
    assert 10 <= len(failures) <= 14


def test_one_question_that_is_forbidden_is_its_own_failure_once_another_was_answered() -> None:
    forbidden = 403, {"error": {"message": "flagged"}}
    with scripted(lambda question, times: forbidden if question == "flagged" else good(question, times)) as (url, _):
        replies, failures, end = asked(url, ["a", "b", "flagged", "c", "d", "e"])
        assert (len(replies), list(failures), end) == (5, [2], None)
        assert "PermissionDeniedError" in str(asked(url, ["flagged", "a"])[2])


def test_what_is_under_way_when_a_run_ends_is_kept() -> None:
    begun = threading.Barrier(4)

    def script(question: str, times: int) -> Answer:
        if question == "first":
            return good(question, times)
        begun.wait(5)
        if question == "rejected":
            return 401, {"error": {"message": f"wrong key, you sent Bearer {KEY}"}}
        time.sleep(0.3)
        return good(question, times)

    with scripted(script) as (url, seen):
        replies, _, end = asked(url, ["first", "rejected", "a", "b", "c", "d", "e"])
    assert sorted(replies) == [0, 2, 3, 4]
    assert "AuthenticationError" in str(end)
    assert KEY not in str(end)
    assert set(seen) == {"first", "rejected", "a", "b", "c"}


class Trickling(Scripted):
    """Sends a blank now and then, to keep the connection alive, for longer than anybody waits."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(40):
            time.sleep(0.1)
            try:
                self.wfile.write(b" ")
            except OSError:
                break
        self.close_connection = True


def test_the_limit_of_a_try_is_of_the_whole_of_it() -> None:
    with serving(Trickling) as (url, _):
        begin = time.monotonic()
        _, failures, _ = asked(url, ["a"], timeout_s=0.5, max_retries=1)
        assert time.monotonic() - begin < 3
    assert "APITimeoutError" in failures[0]


@pytest.mark.parametrize("kind", ["broken", "gateway", "reset", "hung", "other model"])
def test_a_row_that_failed_at_one_server_is_asked_again_at_another(kind: str) -> None:
    """One that is half dead, in whatever way, beside a good one: no row is lost."""

    def half_dead(question: str, times: int) -> Answer | None:
        counted.append(question)
        if len(counted) <= 30:
            return good(question, times)
        if kind == "hung":
            time.sleep(1.5)
        statuses = {"broken": 500, "gateway": 502, "other model": 404}
        return (statuses[kind], {"error": {"message": kind}}) if kind in statuses else None

    def slow_and_good(question: str, times: int) -> Answer:
        time.sleep(0.02)
        return good(question, times)

    counted: list[str] = []
    results: dict[int, Any] = {}
    with scripted(half_dead) as (bad, _), scripted(slow_and_good) as (fine, _):
        overrides = ("engine=server", "engine.concurrency=4", "engine.timeout_s=1.0", "engine.max_retries=0")
        option = configuration("model=tiny", *overrides).engine
        assert isinstance(option, ServerEngineConfig)
        fleet = Fleet({url: ServerEngine(option, url, 60, "none") for url in (bad, fine)})
        fleet.complete([[{"role": "user", "content": f"skill {number}"}] for number in range(160)], results.update)
    assert sorted(results) == list(range(160))
    assert {completion.finish_reason for completion in results.values()} == {"stop"}


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Invalid value", "param": "response_format"}},
        {"detail": [{"loc": ["body", "response_format"], "msg": "extra fields not permitted"}]},
        {"message": "json_schema is not a thing here"},
        "no such response_format",
    ],
)
def test_a_refused_parameter_is_found_in_a_body_of_any_shape(body: Any) -> None:
    sent: list[Any] = []

    class Choosy(Scripted):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.append(request.get("response_format"))
            content = json.dumps(completion("fine") if sent[-1] is None else body)
            content = body if isinstance(body, str) and sent[-1] is not None else content
            self.send_response(400 if sent[-1] is not None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content.encode())

    with serving(Choosy) as (url, _):
        server = Server(url, "none", 1, 5.0, 0)

        async def ask(question: str) -> Reply:
            fallbacks = {"response_format": [{"type": "json_object"}, None]}
            return await server.chat(9, fallbacks, model="m", messages=[], response_format={"type": "json_schema"})

        replies: dict[int, Reply] = {}
        asyncio.run(server.ask_all(["a", "b"], ask, replies.__setitem__, lambda row, why: pytest.fail(why), 0))
    assert [reply.text for reply in replies.values()] == ["fine", "fine"]
    assert [form and form["type"] for form in sent] == ["json_schema", "json_object", None, None], "learnt once"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60))
def test_a_key_is_masked_in_whatever_form_a_text_holds_it(key: str) -> None:
    escaped, quoted = json.dumps(key)[1:-1], quote(key, safe="")
    in_lower_case = re.sub("%..", lambda code: code[0].lower(), quoted)
    for form in (key, escaped, escaped.replace("/", "\\/"), quoted, in_lower_case, key.encode().hex()):
        assert mask(f"<{form}>", key) == "<***>"
    for before in ("", "Bearer ", "user:", "x"):
        encoded = base64.b64encode(f"{before}{key}".encode()).decode()
        left = mask(encoded, key)
        assert "***" in left
        assert len(left.replace("***", "")) <= len(base64.b64encode(before.encode())) + 4, "its neighbours, and a part of a sign"


@pytest.mark.parametrize("override", ["engine=server engine.base_url", "judge=server judge.model=m judge.base_url"])
@pytest.mark.parametrize("address", ["http://x/v1?api-key=K", "http://x/v1#K", "http://u:p@x/v1"])
def test_an_address_that_holds_a_key_is_refused_without_it(override: str, address: str) -> None:
    *others, key = override.split()
    with pytest.raises(InputError, match="api_key_env") as error:
        compose([*others, f"{key}='{address}'"])
    assert "K" not in str(error.value).replace("API_KEY", "")


def test_a_short_key_masks_nothing_but_itself() -> None:
    text = "The quick brown fox, eeee, dGhl"
    assert mask(text, "x") == text.replace("x", "***")
    assert mask(text, "abc") == text


def test_too_many_open_files_are_named_as_that() -> None:
    """What the client raises then is a connection error, as if the server were down."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def fail() -> None:
        async with Server(url, "none", 1, 5.0, 0) as opened:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
            await opened.models.list()

    with scripted(good) as (url, _):
        try:
            with pytest.raises(InputError, match="too many open files; lower concurrency, or raise `ulimit -n`"):
                asyncio.run(fail())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_are_allowed_as_there_are_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        allow_connections(256)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 256 + SPARE_FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("usage", [None, {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}, "many"])
def test_a_decision_counts_whatever_its_usage_says(usage: Any) -> None:
    shares = [{"value": "Hard", "probability": 0.9}, {"value": "Soft", "probability": 0.1}]
    body = {"id": "d", "object": "decision", "model": "m", "usage": usage}
    body["answers"] = [{"type": "choice", "choice": "Hard", "probabilities": shares}]
    with scripted(lambda *_: (200, body)) as (url, _):
        server = Server(url, "none", 1, 5.0, 0)

        async def ask(question: str) -> Reply:
            messages = [{"role": "user", "content": question}]
            return await server.decide("m", messages, "Which?", ["Hard", "Soft", "Unknown"])

        replies: dict[int, Reply] = {}
        asyncio.run(server.ask_all(["a"], ask, replies.__setitem__, lambda row, why: pytest.fail(why), 0))
    assert (replies[0].text, replies[0].usage.input) == ("Hard", 5 if isinstance(usage, dict) else 0)


def test_a_poisoned_row_makes_no_later_run_fail(repository: Repository) -> None:
    """Rows that were stored before counts were checked."""

    def script(question: str, times: int) -> Answer:
        return 200, completion('{"rationale": "r", "verdict": "Hard"}')

    with scripted(script) as (url, _):
        repository.configure("judge=server", f"judge.base_url={url}", "judge.model=m")
        repository.staged("judge")
        with sqlite3.connect(repository.path / default_path()) as store:
            for key, text in store.execute("SELECT key, value FROM row").fetchall():
                value = json.loads(text)
                if "usage" in value:
                    value["usage"] = {"input": "many", "cached_input": {"a": 1}, "output": -3, "reasoning": None}
                    poisoned = canonical(value)
                    store.execute("UPDATE row SET value = ?, digest = ? WHERE key = ?", (poisoned, _digest(key, poisoned), key))
        store.close()
        repository.staged("judge")
    judged = json.loads(repository.read("metrics/judge.json"))
    assert judged["stored"] == judged["skills"]
    assert judged["usage"]["input_tokens"] == judged["usage"]["output_tokens"] == 0


def test_what_an_error_share_let_pass_stays_passed(repository: Repository) -> None:
    """The rows that are left when a stage runs again are the failing ones."""
    bad = {f"Skill {number}" for number in range(4)}
    rows = "".join(f"Skill {number},1\n" for number in range(24))
    (repository.path / "data/interim/skills.csv").unlink()
    repository.write("data/interim/skills.csv", f"skill,mentions\n{rows}")

    def script(question: str, times: int) -> Answer:
        skill = question.partition('"')[2].partition('"')[0]
        return (418, {"error": {"message": "a teapot"}}) if skill in bad else good(question, times)

    with scripted(script) as (url, _):
        options = ["engine=server", f"engine.base_url={url}", "engine.prefill=false", "prompt=zero_shot", "engine.max_retries=0"]
        repository.configure(*options, "engine.max_error_share=0.2")
        for _ in range(2):
            repository.staged("classify")
        repository.configure(*options)
        run = repository.stage("classify")
    assert run.code == 1
    assert "418" in run.output
