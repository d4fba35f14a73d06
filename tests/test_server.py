"""The server engine over real HTTP: against `transformers serve` with the committed model, and against a server of faults."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type
from openai.types.chat import ChatCompletion

from hardsoft.config.compose import configuration
from hardsoft.config.engines import ServerEngineConfig
from hardsoft.config.load import load_config
from hardsoft.config.machine import guess_machine
from hardsoft.config.preflight import read_key
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.engines.fleet import Fleet
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.tokens import Encoder
from hardsoft.engines.server import ServerEngine, label_probabilities
from hardsoft.prompting.answers import read_answer
from hardsoft.servers import client
from hardsoft.servers.client import NO_KEY
from hardsoft.servers.replies import read_reply
from hardsoft.servers.tokens import read_first_token
from hardsoft.stages.classify import check_prompt
from hardsoft.store.key import completion_setting
from tests.support.models import model, prompt, some_skills, text
from tests.support.repositories import CHECKPOINT, ROOT, Repository, free_port, whatever_holds
from tests.support.servers import REPLIES, FaultHandler, completion, serving


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(client, "FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def option(base_url: str, **options: Any) -> ServerEngineConfig:
    usual = {"kind": "server", "model": "m", "concurrency": 4, "timeout_s": 1.0, "max_retries": 2, "prefill": True}
    usual |= {
        "base_urls": [],
        "endpoint": "chat",
        "parameters": {},
        "identity": None,
        "api_key_env": "HARDSOFT_SERVER_KEY",
        "max_error_share": 0.0,
    }
    return ServerEngineConfig(base_url=base_url, **{**usual, **options})


def complete(option: ServerEngineConfig, skills: list[str], name: str = "cot", key: str = NO_KEY) -> list[Completion]:
    completions: dict[int, Completion] = {}
    engines = {url: ServerEngine(option, url, 60, key, name == "label_only") for url in option.addresses()}
    engine = Fleet(engines) if len(engines) > 1 else next(iter(engines.values()))
    engine.complete([prompt(name).messages(skill) for skill in skills], completions.update)
    return [completions[row] for row in range(len(skills))]


@pytest.mark.xdist_group("served")
def test_a_real_server_writes_what_the_local_engine_writes(served: str) -> None:
    skills = some_skills(60)
    local: dict[int, Completion] = {}
    network, tokenizer = model()
    LocalEngine(network, Encoder(tokenizer), 64, 60).complete(
        [prompt("zero_shot").messages(skill) for skill in skills], local.update
    )
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
    repository.staged("classify")
    rows = [json.loads(line) for line in repository.read("data/interim/completions.jsonl").splitlines()]
    assert {row["finish_reason"] for row in rows} == {"stop"}
    first = json.loads(repository.read("metrics/throughput.json"))
    assert (first["stored"], first["tokens"]) == (0, sum(row["tokens"] for row in rows))
    repository.staged("classify")
    assert json.loads(repository.read("metrics/throughput.json"))["stored"] == len(rows)


@pytest.mark.parametrize("name", [name for name in REPLIES if name.startswith(("ends with", "has"))])
def test_good_answers_are_used_however_a_server_writes_them(faulty: tuple[str, type[FaultHandler]], name: str) -> None:
    (one,) = complete(option(faulty[0]), [name])
    assert one.finish_reason == "stop"
    assert one.text.startswith("Step 1:")
    assert read_answer(one.text, one.finish_reason).label == "Hard"
    assert one.tokens == (0 if name in ("has no counts", "has no usage") else 7)
    one.text.encode("utf-8")


@pytest.mark.parametrize("name", [name for name in REPLIES if name.startswith("cut")])
def test_answers_that_a_limit_cut_off_are_truncated(faulty: tuple[str, type[FaultHandler]], name: str) -> None:
    assert complete(option(faulty[0]), [name])[0].finish_reason == "length"


@pytest.mark.parametrize("name", ["is filtered", "is refused"])
def test_what_a_provider_will_not_speak_of_is_an_answer_and_no_error(faulty: tuple[str, type[FaultHandler]], name: str) -> None:
    (one,) = complete(option(faulty[0]), [name])
    assert read_answer(one.text, one.finish_reason).outcome == "abstained"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("only thinks", "the reply has no content, only reasoning_content"),
        ("ends oddly", "the server ended the message with 'tool_calls'"),
        ("is an error", "Provider returned error: model overloaded"),
    ],
)
def test_what_would_hit_every_row_ends_the_run_after_few_questions(
    faulty: tuple[str, type[FaultHandler]], name: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        complete(option(faulty[0], max_retries=0), [name] * 50)
    assert len(faulty[1].bodies) == 2
    good, bad, other = complete(option(faulty[0], max_retries=0), ["good", name, "other"])
    assert (good.finish_reason, bad.finish_reason, other.finish_reason) == ("stop", "error", "stop")
    assert words in bad.text


def test_a_model_that_refuses_parameters_is_asked_without_them(faulty: tuple[str, type[FaultHandler]]) -> None:
    """As newer models of OpenAI do; it is met once, not by every row."""
    completions = complete(option(faulty[0], concurrency=1), ["new model", "new model", "new model"])
    assert {one.finish_reason for one in completions} == {"stop"}
    assert len(faulty[1].bodies) == 5
    assert faulty[1].bodies[-1]["max_completion_tokens"] == 60
    assert not {"max_tokens", "temperature"} & faulty[1].bodies[-1].keys()


KEY = 'k-planted"0001+/='


def test_a_key_that_a_server_repeats_is_masked_in_every_form(faulty: tuple[str, type[FaultHandler]]) -> None:
    (one,) = complete(option(faulty[0]), ["echo"], key=KEY)
    assert one.text == "Step 1: *** *** ***\nAnswer: Hard"
    with pytest.raises(InputError) as error:
        complete(option(faulty[0]), ["key x99"], key=KEY)
    assert "planted" not in str(error.value)
    assert "HTTP 401" in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", " ", "\t"])
def test_blanks_around_a_key_do_not_count(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDSOFT_SERVER_KEY", f" k-planted-0001{end}")
    assert read_key("HARDSOFT_SERVER_KEY") == "k-planted-0001"


@pytest.mark.parametrize("middle", ["\n", " ", "\u200b", "é", "\x1b", "\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_without_it(middle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDSOFT_SERVER_KEY", f"k-planted{middle}0001")
    with pytest.raises(InputError, match="HARDSOFT_SERVER_KEY contains a blank, a line end") as error:
        read_key("HARDSOFT_SERVER_KEY")
    assert "planted" not in str(error.value)


@pytest.mark.parametrize("end", ["\n", "\rx"])
def test_a_key_with_a_line_end_gets_out_nowhere(faulty: tuple[str, type[FaultHandler]], repository: Repository, end: str) -> None:
    repository.write("data/interim/skills.csv", "skill,mentions\ngood,1\n")
    repository.configure("engine=server", f"engine.base_url={faulty[0]}")
    environment = {"HARDSOFT_SERVER_KEY": f"k-planted-0001{end}", "OPENAI_API_KEY": "k-planted-0001-of-another"}
    run = repository.stage("classify", environment=environment)
    if end.strip():
        assert (run.code, run.output.count("\n")) == (1, 1)
        assert "HARDSOFT_SERVER_KEY contains" in run.output
    else:
        assert run.code == 0, run.output
    assert "planted" not in run.output
    assert whatever_holds(repository, ["k-planted-0001"]) == []
    assert not any("of-another" in value for value in faulty[1].keys)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "socks://127.0.0.1:1080/"])
def test_a_proxy_that_cannot_be_used_is_one_clear_line(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InputError, match=r"ALL_PROXY names a proxy that cannot be used .*; unset it"):
        complete(option("http://127.0.0.1:9/v1"), ["V-Ray"])


@pytest.fixture
def faulty() -> Iterator[tuple[str, type[FaultHandler]]]:
    stop = threading.Event()
    handler: type[FaultHandler] = type(
        "ThisTestsHandler", (FaultHandler,), {"seen": Counter(), "bodies": [], "keys": [], "stop": stop}
    )
    with serving(handler) as (url, _):
        yield url, handler
        stop.set()


@pytest.mark.parametrize("fault", ["busy", "broken", "hung", "half", "no json", "page", "empty"])
def test_passing_faults_are_waited_out(faulty: tuple[str, type[FaultHandler]], fault: str) -> None:
    begin = time.monotonic()
    (one,) = complete(option(faulty[0]), [f"{fault} x1"])
    assert text(one) == ("Step 1: fine after 2\nAnswer: Hard", "stop", 7)
    if fault == "busy":
        assert time.monotonic() - begin >= 0.2


@pytest.mark.parametrize("fault", ["busy", "broken", "half", "no json", "page", "empty", "too long"])
def test_lasting_faults_are_the_rows_own(faulty: tuple[str, type[FaultHandler]], fault: str) -> None:
    """The rows before and after it are there; the row itself is an error that says why."""
    good, bad, other = complete(option(faulty[0], concurrency=1), ["good", f"{fault} x99", "other"])
    assert (good.finish_reason, other.finish_reason) == ("stop", "stop")
    assert bad.finish_reason == "error"
    assert bad.text
    assert "\n" not in bad.text


def test_questions_refused_one_by_one_are_answers_though_nothing_else_was_asked(faulty: tuple[str, type[FaultHandler]]) -> None:
    refused = complete(option(faulty[0]), [f"refused x{9999 + number}" for number in range(30)])
    assert {one.finish_reason for one in refused} == {"content_filter"}


def test_a_request_asks_to_go_on_from_the_prefill_greedily(faulty: tuple[str, type[FaultHandler]]) -> None:
    complete(option(faulty[0]), ["V-Ray"])
    complete(option(faulty[0], prefill=False), ["V-Ray"])
    with_prefill, without = faulty[1].bodies
    assert with_prefill["messages"] == prompt("cot").messages("V-Ray")
    assert with_prefill["continue_final_message"] is True
    assert with_prefill["add_generation_prompt"] is False
    assert without["messages"] == prompt("cot").messages("V-Ray")[:-1]
    assert "continue_final_message" not in without
    assert [(body["temperature"], body["max_tokens"], body["model"]) for body in (with_prefill, without)] == [(0, 60, "m")] * 2


def test_labels_are_scored_where_the_server_tells_its_first_token(faulty: tuple[str, type[FaultHandler]]) -> None:
    tells, other, plain, last = complete(
        option(faulty[0], concurrency=1), ["tells", "tells other", "good", "tells"], "label_only"
    )
    assert tells.probabilities == pytest.approx((0.75, 0.0, 0.25), abs=1e-6)
    assert (tells.text, tells.tokens) == ("Answer: Hard", 1)
    assert other.probabilities is None  # no label among the likely tokens: completed
    assert plain.probabilities is None  # this server does not tell, and is not asked for it again
    assert last.probabilities is None
    first, *_, final = faulty[1].bodies
    assert (first["max_tokens"], first["top_logprobs"]) == (1, 20)
    assert "logprobs" not in final


def likely(**shares: float) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in shares.items()]


UNKNOWN_FORMS: list[Any] = [
    None,
    [-0.1],
    "Hard",
    {"content": []},
    {"content": [None]},
    {"content": "Hard"},
    {"content": [{"token": "Hard", "logprob": None, "top_logprobs": [{"token": "Hard", "logprob": None}]}]},
    {"content": [{"token": "Hard", "prob": 0.9, "top_logprobs": [{"token": "Hard", "prob": 0.9}]}]},
    {"content": [{"top_logprobs": [{"token": None, "logprob": -0.1}, {"token": "Hard", "logprob": -3}]}]},
    {"content": [{"top_logprobs": {"Hard": -0.1, "Soft": -3.0}}]},
    {"content": [{"top_logprobs": [-0.1, "Hard", None]}]},
    {"content": [{"top_logprobs": [{"token": "Hard", "logprob": "-0.1"}]}]},
    {"content": [{"top_logprobs": [{"token": "Hard", "logprob": float("nan")}]}]},
    {"content": [{"top_logprobs": [{"token": "Hard", "logprob": 0.9}]}]},
    {"content": [{"top_logprobs": [{"token": "Hard", "logprob": 0}, {"token": "Soft", "logprob": 0}]}]},
    {"content": [{"top_logprobs": [{"token": "token_id:17", "logprob": -0.1}]}]},
    {"tokens": ["Hard"], "token_logprobs": [-0.1], "top_logprobs": [{"Hard": -0.1}]},
]


@pytest.mark.parametrize("logprobs", UNKNOWN_FORMS)
def test_a_first_token_that_cannot_be_read_is_not_told(logprobs: Any) -> None:
    reply = completion("Hard")
    reply["choices"][0]["logprobs"] = logprobs
    told = read_reply(construct_type(value=reply, type_=ChatCompletion)).first_token  # type: ignore[arg-type]
    assert label_probabilities(told) is None


whatever = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["Hard", "ĠSoft", "<0xff>", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["content", "top_logprobs", "token"]), inner),
)
entries = st.fixed_dictionaries({}, optional={"token": whatever, "logprob": whatever, "bytes": whatever})


@given(whatever | st.lists(entries | whatever, max_size=4).map(lambda told: {"content": [{"top_logprobs": told}]}))
def test_any_first_token_is_read_without_a_fault(logprobs: Any) -> None:
    probabilities = label_probabilities(read_first_token(logprobs))
    assert probabilities is None or sum(probabilities) == pytest.approx(1)


@pytest.mark.parametrize(
    ("hard", "codes"),
    [
        ("ĠHard", None),
        ("▁Hard", None),
        ("ĊHard", None),
        ("<0x20>Hard", None),
        ("<0x0A>Hard", None),
        ("hard</w>", None),
        ("Ġ", list(b" Hard")),
        ("Hard", []),
        ("Hard", [300]),
        ("Hard", ["x"]),
    ],
)
def test_a_token_is_read_as_its_vocabulary_writes_it(hard: str, codes: Any) -> None:
    told = [{"token": hard, "logprob": -0.01, "bytes": codes}, *likely(ĠSoft=0.007, Soft=0.0001)]
    probabilities = label_probabilities(read_first_token({"content": [{"top_logprobs": told}]}))
    assert probabilities is not None
    assert probabilities == pytest.approx((0.993, 0.007, 0), abs=1e-3)


def test_labels_are_scored_only_where_they_are_what_the_model_would_say() -> None:
    assert label_probabilities({"Hard": math.log(0.4), "It": math.log(0.3), "Soft": math.log(0.2)}) is not None
    assert label_probabilities({"Hard": math.log(0.3), "It": math.log(0.2), "The": math.log(0.2)}) is None
    assert label_probabilities({"It": math.log(0.4), "Hard": math.log(0.3), "Soft": math.log(0.3)}) is None
    assert label_probabilities({}) is None


def test_a_token_that_is_told_twice_counts_once_and_pieces_of_one_text_add_up() -> None:
    told = likely(Hard=0.3, ĠHard=0.3, Soft=0.2)
    first = read_first_token({"content": [{"top_logprobs": [*told, told[0]]}]})
    assert {token: round(math.exp(logprob), 6) for token, logprob in first.items()} == {"Hard": 0.3, " Hard": 0.3, "Soft": 0.2}


def test_the_keys_of_rows_scored_over_a_server_are_new_and_all_others_are_kept() -> None:
    def server(prompt: str, **options: Any) -> Any:
        config = configuration(f"prompt={prompt}").model_copy(update={"engine": option("http://127.0.0.1:1/v1", **options)})
        return completion_setting(config, guess_machine(config))["server"]

    unscored = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "prefill": True}
    assert server("label_only") == {**unscored, "scored": 2}
    assert server("cot") == unscored
    assert server("label_only", endpoint="decisions") == {**unscored, "scored": True, "endpoint": "decisions"}


def test_decisions_are_labels_with_probabilities(faulty: tuple[str, type[FaultHandler]]) -> None:
    decides = option(faulty[0], endpoint="decisions", max_retries=0)
    soft, hard, refused, odd, other = complete(decides, ["Empathy", "V-Ray", "refused", "odd", "other"], "label_only")
    assert soft.text == "Answer: Soft"
    assert soft.probabilities == pytest.approx((0.2, 0.7, 0.1))
    assert hard.text == "Answer: Hard"
    assert (refused.finish_reason, refused.probabilities) == ("content_filter", None)
    assert (odd.finish_reason, other.finish_reason) == ("error", "error")
    body = faulty[1].bodies[0]
    assert [message["role"] for message in body["input"]] == ["system", "user"]
    assert [one["value"] for one in body["questions"][0]["choices"]] == ["Hard", "Soft", "Unknown"]
    config = load_config().model_copy(update={"engine": decides})
    with pytest.raises(InputError, match="decisions come without reasons; set prompt=label_only"):
        check_prompt(config)


def test_parameters_are_sent(faulty: tuple[str, type[FaultHandler]]) -> None:
    complete(option(faulty[0], parameters={"repetition_penalty": 1.0}), ["good"])
    assert faulty[1].bodies[0]["repetition_penalty"] == 1.0
    with pytest.raises(ValueError, match="identity must name"):
        option(faulty[0], base_urls=[faulty[0]])


def test_several_servers_share_the_rows_and_a_dead_one_is_left_out(
    faulty: tuple[str, type[FaultHandler]], capsys: pytest.CaptureFixture[str]
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    with serving(faulty[1]) as (second, _):
        both = option(dead, base_urls=[faulty[0], second], identity="two")
        assert {one.finish_reason for one in complete(both, [f"skill {number}" for number in range(40)])} == {"stop"}
        three = option(dead, base_urls=[faulty[0], dead, second], identity="three", max_retries=0)
        assert {one.finish_reason for one in complete(three, [f"more {number}" for number in range(40)])} == {"stop"}
        assert f"{dead}: APIConnectionError" in capsys.readouterr().err
        # A row that fails at one is asked again.
        rows = complete(option(dead, base_urls=[second, faulty[0]], identity="x", max_retries=0), ["good", "busy x1", "other"])
        assert {one.finish_reason for one in rows} == {"stop"}
    with pytest.raises(InputError, match=r"APIConnectionError.*; .*APIConnectionError"):
        complete(option(dead, base_urls=[dead, f"{dead}/"], identity="none", max_retries=0), ["good"])


def test_a_server_that_stops_in_the_middle_leaves_its_rows_to_the_others(faulty: tuple[str, type[FaultHandler]]) -> None:
    with serving(faulty[1]) as (dying, http):
        skills = [f"row {number}" for number in range(30)]
        stopped = threading.Event()

        def stop() -> None:
            while faulty[1].seen.total() < 10:
                time.sleep(0.001)
            http.shutdown()
            http.server_close()
            stopped.set()

        threading.Thread(target=stop, daemon=True).start()
        both = option(dying, base_urls=[dying, faulty[0]], identity="two", max_retries=0, timeout_s=0.5)
        rows = complete(both, [*skills, *(f"later {number}" for number in range(400))])
        assert {one.finish_reason for one in rows} == {"stop"}
        assert stopped.wait(5)


@pytest.mark.parametrize("fault", ["key", "model"])
def test_a_wrong_key_or_model_ends_the_run_in_one_line(faulty: tuple[str, type[FaultHandler]], fault: str) -> None:
    with pytest.raises(InputError, match=f"HTTP 40[14].*wrong {fault}") as error:
        complete(option(faulty[0]), ["good", f"{fault} x99"], key="a-planted-key")
    assert "a-planted-key" not in str(error.value)


def test_a_server_that_is_down_ends_the_run_in_one_line() -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:\d+/v1: APIConnectionError"):
        complete(option(f"http://127.0.0.1:{free_port()}/v1", max_retries=1), ["V-Ray"])


def test_a_server_that_never_answers_well_is_given_up(faulty: tuple[str, type[FaultHandler]]) -> None:
    with pytest.raises(InputError, match=r"2 questions failed before any was answered, the last by .*HTTP 500.*internal"):
        complete(option(faulty[0], max_retries=0), [f"broken x{9999 + number}" for number in range(60)])
    assert faulty[1].seen["broken"] == 2


def test_rows_that_fail_are_errors_of_the_stage_and_asked_again(
    faulty: tuple[str, type[FaultHandler]], repository: Repository
) -> None:
    """Counted, not stored; the next run asks for them alone."""
    skills = "skill,mentions\nbroken x6,1\ngood,1\nother,1\n"
    repository.write("data/interim/skills.csv", skills)
    overrides = ["engine=server", f"engine.base_url={faulty[0]}", "engine.max_retries=1", "engine.concurrency=1"]
    repository.configure(*overrides)
    run = repository.stage("classify")
    assert run.code == 1
    assert "1 of 3 rows failed (InternalServerError: HTTP 500" in run.output
    assert "engine.max_error_share: 0 lets pass; the other 2 are stored, and `dvc repro` goes on with the rest" in run.output
    assert not (repository.path / "data/interim/completions.jsonl").read_text(encoding="utf-8").startswith('{"skill": "broken')
    repository.configure(*overrides, "engine.max_error_share=0.5")
    run = repository.staged("classify")
    assert "note: 1 of 3 rows failed (InternalServerError: HTTP 500" in run.output
    repository.staged("clean")
    assert json.loads(repository.read("metrics/labels.json"))["outcomes"]["error"] == 1
    assert "broken x6,Unknown,error,1" in repository.read("data/processed/labels.csv")
    asked = len(faulty[1].bodies)
    repository.staged("classify")
    assert [body["messages"][1]["content"].rpartition("Skill: ")[2] for body in faulty[1].bodies[asked:]] == ["broken x6"] * 2
    repository.staged("classify")
    repository.staged("clean")
    assert json.loads(repository.read("metrics/labels.json"))["outcomes"]["error"] == 0


def test_a_run_that_a_server_ends_keeps_its_rows(faulty: tuple[str, type[FaultHandler]], repository: Repository) -> None:
    repository.write("data/interim/skills.csv", "skill,mentions\ngood,1\nkey x1,1\nother,1\n")
    overrides = ["engine=server", f"engine.base_url={faulty[0]}", "engine.concurrency=1"]
    repository.configure(*overrides)
    run = repository.stage("classify")
    assert run.code == 1
    (line,) = [line for line in run.output.splitlines() if line.startswith("classify: http")]
    assert "HTTP 401" in line
    assert "Traceback" not in run.output
    repository.staged("classify")
    assert faulty[1].seen["good"] == 1
    assert faulty[1].seen["key"] == 2
