"""The judge over real HTTP, against a server that misbehaves on request, and the whole stage with its store."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from hardsoft.config.compose import compose, configuration
from hardsoft.config.judges import LLMJudgeConfig, ModelPrice, language_judges
from hardsoft.config.load import load_config
from hardsoft.config.preflight import check_judge
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError
from hardsoft.judging.llm import LLMJudge, read_verdict
from hardsoft.judging.plan import cost, plan
from hardsoft.servers.batch import Batches
from hardsoft.servers.client import NO_KEY
from hardsoft.servers.replies import Reply, Usage
from hardsoft.store.key import verdict_setting
from tests.support.repositories import CHECKPOINT, ROOT, Repository, free_port, whatever_holds
from tests.support.servers import JudgeHandler


def config(*overrides: str) -> Config:
    return configuration(*overrides)


def option(base_url: str, **options: Any) -> LLMJudgeConfig:
    judge = config("judge=server", f"judge.base_url={base_url}", "judge.model=m").judge
    assert isinstance(judge, LLMJudgeConfig)
    return judge.model_copy(update={"concurrency": 4, "timeout_s": 2.0, "max_retries": 1, **options})


def ask(judge: LLMJudge, skills: list[str]) -> tuple[dict[int, Reply], dict[int, str]]:
    replies: dict[int, Reply] = {}
    failures: dict[int, str] = {}
    judge.ask((judge.chat(skill, "Soft") for skill in skills), replies.__setitem__, failures.__setitem__)
    return replies, failures


def outcomes(judge: LLMJudge, skills: list[str]) -> list[str]:
    replies, failures = ask(judge, skills)
    assert replies.keys() | failures.keys() == set(range(len(skills)))
    return [
        "error" if row in failures else read_verdict(replies[row].text, replies[row].finish_reason).outcome.value
        for row in range(len(skills))
    ]


def test_verdicts_with_rationale_and_usage(server: tuple[str, type[JudgeHandler]]) -> None:
    replies, failures = ask(LLMJudge(option(server[0]), "# Codebook", NO_KEY), ["Empathy", "V-Ray"])
    assert not failures
    first = read_verdict(replies[0].text, "stop")
    assert (first.verdict, first.outcome, first.rationale) == ("Soft", "answered", "About Empathy.")
    assert (replies[0].usage, replies[0].model) == (Usage(100, 60, 20, 5), "m-2026")
    assert read_verdict(replies[1].text, "stop").verdict == "Hard"


def test_the_judge_is_blind_and_gives_its_rationale_first(server: tuple[str, type[JudgeHandler]]) -> None:
    ask(LLMJudge(option(server[0]), "# Codebook", NO_KEY), ["V-Ray"])
    ask(LLMJudge(option(server[0], blind=False), "# Codebook", NO_KEY), ["V-Ray"])
    blind, seeing = server[1].bodies
    assert blind["messages"][-1]["content"] == "Skill: V-Ray"
    assert "Soft" in seeing["messages"][-1]["content"]
    assert "# Codebook" in blind["messages"][0]["content"]
    schema = blind["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["rationale", "verdict"]
    assert schema["properties"]["verdict"]["enum"] == ["Hard", "Soft", "Unknown"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("takes", [("json_object", None), (None,)])
def test_a_server_without_schemas_is_asked_for_json_then_in_words(
    server: tuple[str, type[JudgeHandler]], takes: tuple[str | None, ...]
) -> None:
    server[1].takes = takes
    judge = LLMJudge(option(server[0]), "# Codebook", NO_KEY)
    replies, failures = ask(judge, ["Empathy", "V-Ray", "Tact"])
    assert not failures
    assert [read_verdict(replies[row].text, "stop").verdict for row in range(3)] == ["Soft", "Hard", "Soft"]
    assert len(server[1].bodies) == 3 + (1 if takes[0] else 2), "each refusal is met once"


def test_what_is_no_verdict_is_an_outcome_of_its_row(server: tuple[str, type[JudgeHandler]]) -> None:
    skills = ["V-Ray", "refused", "long", "filtered", "wrong schema", "empty", "broken", "fenced", "busy"]
    expected = ["answered", "refused", "truncated", "refused", "unparseable", "error", "error", "answered", "answered"]
    assert outcomes(LLMJudge(option(server[0]), "# Codebook", NO_KEY), skills) == expected


@pytest.mark.parametrize(("skill", "words"), [("wrong key", "AuthenticationError.*Incorrect API key"), ("no quota", "quota")])
def test_a_rejected_key_and_an_empty_purse_end_the_run_in_one_line(
    server: tuple[str, type[JudgeHandler]], skill: str, words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        ask(LLMJudge(option(server[0], max_retries=0), "# Codebook", "a-planted-key"), [skill] * 3)
    assert "a-planted-key" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("o3", "announces that o3 shuts down on 2026-12-11"),
        ("gone", "does not list the model gone"),
        ("m", None),
        ("broken", None),
    ],
)
def test_what_the_server_says_of_the_model(server: tuple[str, type[JudgeHandler]], model: str, words: str | None) -> None:
    said = LLMJudge(option(server[0], model=model), "", NO_KEY).announced()
    assert said is None if words is None else words in str(said)
    assert LLMJudge(option(f"http://127.0.0.1:{free_port()}/v1"), "", NO_KEY).announced() is None


def test_a_plan_and_what_it_cost() -> None:
    price = ModelPrice(model="m", input=2.0, cached_input=0.5, output=8.0)
    planned = plan(["x" * 4000] * 100, 20, 300, price, 1.0)
    assert (planned.calls, planned.stored, planned.input_tokens, planned.output_tokens) == (100, 20, 100_000, 30_000)
    assert planned.price_usd == pytest.approx(0.2 + 0.24)
    assert cost(Usage(1_000_000, 400_000, 1_000_000, 900_000), price, 1.0) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 8)
    assert cost(Usage(1, 0, 1, 0), None, 0.5) is None


def test_the_keys_of_verdicts_hold_what_can_change_one() -> None:
    usual = verdict_setting(option("http://a/v1"))
    for same in ({"budget_usd": 1.0}, {"concurrency": 1}, {"max_retries": 9}, {"api_key_env": "X"}):
        assert verdict_setting(option("http://a/v1", **same)) == usual
    others = [option("http://b/v1"), option("http://a/v1", model="n"), option("http://a/v1", reasoning_effort="low")]
    assert all(verdict_setting(other) != usual for other in others)
    assert verdict_setting(option("http://a/v1", identity="x")) == verdict_setting(option("http://b/v1", identity="x"))


@pytest.mark.parametrize(("key", "message"), [(None, "missing: OPENAI_API_KEY"), ("x y", "OPENAI_API_KEY contains a blank")])
def test_no_or_an_impossible_key_is_one_clear_error(key: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match=message):
        check_judge(language_judges(config("judge=o3").judge))
    check_judge(language_judges(load_config().judge))


def test_an_address_with_a_password_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:planted-password@127.0.0.1:9/v1")
    judge = config("judge=o3").judge
    assert isinstance(judge, LLMJudgeConfig)
    with pytest.raises(InputError, match="OPENAI_BASE_URL holds a user name or password") as error:
        ask(LLMJudge(judge, "", "key"), ["V-Ray"])
    assert "planted" not in str(error.value)


def stage(repository: Repository, url: str, *overrides: str) -> None:
    repository.configure("judge=server", f"judge.base_url={url}", "judge.model=m", *overrides)


def write_sample(repository: Repository, skills: list[str]) -> None:
    path = repository.path / "data/processed/sample.csv"
    path.unlink()  # a link into DVC's cache may be read-only
    repository.write("data/processed/sample.csv", "skill,label,weight\n" + "".join(f"{skill},Hard,1.0\n" for skill in skills))


def judge_metrics(repository: Repository) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads(repository.read("metrics/judge.json"))
    return metrics


def test_verdicts_are_paid_once_and_their_cost_is_told(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    write_sample(repository, ["V-Ray", "Empathy", "refused"])
    stage(repository, server[0])
    first = repository.staged("judge")
    assert "3 calls to the judge (0 verdicts are stored)" in first.output
    metrics = judge_metrics(repository)
    assert metrics["outcomes"] | {"answered": 2, "refused": 1} == metrics["outcomes"]
    tokens = {"input_tokens": 300, "cached_input_tokens": 180, "output_tokens": 60, "reasoning_tokens": 15}
    assert (metrics["usage"], metrics["stored"], metrics["blind"]) == ({**tokens, "price_usd": None}, 0, True)
    verdicts = repository.read("data/processed/verdicts.jsonl")

    write_sample(repository, ["Tact", "V-Ray", "Empathy", "refused"])
    second = repository.staged("judge")
    assert "1 calls to the judge (3 verdicts are stored)" in second.output
    assert (judge_metrics(repository)["stored"], len(server[1].bodies)) == (3, 4)
    assert {*verdicts.splitlines()} < {*repository.read("data/processed/verdicts.jsonl").splitlines()}
    repository.staged("judge")
    assert len(server[1].bodies) == 4


def test_a_key_is_asked_for_only_where_a_verdict_is_missing(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    repository.configure("judge=openai", "judge.budget_usd=null")
    address, keyed = {"OPENAI_BASE_URL": server[0]}, {"OPENAI_BASE_URL": server[0], "OPENAI_API_KEY": "a-planted-key"}
    write_sample(repository, ["V-Ray"])
    assert repository.stage("judge", environment=keyed).code == 0
    assert repository.stage("judge", environment=address).code == 0
    assert (judge_metrics(repository)["stored"], len(server[1].bodies)) == (1, 1)
    write_sample(repository, ["V-Ray", "Tact"])
    run = repository.stage("judge", environment=address)
    assert (run.code, run.output.splitlines()[-1].partition(" in ")[0]) == (1, "judge: missing: OPENAI_API_KEY")


def test_decisions_are_verdicts_whose_rationale_is_the_probabilities(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    url, handler = server
    write_sample(repository, ["Empathy", "V-Ray", "refused"])
    repository.configure("judge=decisions", f"judge.base_url={url}", "judge.budget_usd=null")
    repository.staged("judge")
    rows = {row["skill"]: row for row in map(json.loads, repository.read("data/processed/verdicts.jsonl").splitlines())}
    assert (rows["Empathy"]["verdict"], rows["Empathy"]["rationale"]) == ("Soft", "Hard 0.20, Soft 0.70, Unknown 0.10")
    assert rows["refused"]["outcome"] == "refused"
    assert rows["V-Ray"]["usage"]["input"] == 100
    assert "rationale" not in json.dumps(handler.bodies[0]["questions"])
    with pytest.raises(InputError, match=r"judge\.batch=false"):
        compose(["judge=decisions", "judge.batch=true"])


def test_a_plan_over_budget_stops_before_the_first_call(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    """The provider's prices count at its own address only; here that address is the test's."""
    environment = {"OPENAI_BASE_URL": server[0], "OPENAI_API_KEY": "a-planted-key"}
    for overrides, words in (
        (["judge=openai", "judge.budget_usd=0.0001"], "exceeds judge.budget_usd, 0.0001; raise it"),
        (["judge=openai", "judge.model=x"], "judge.prices lists no price of x"),
        (["judge=panel", "judge.budget_usd=0.0001"], "openai, o3: the plan, $"),
        (["judge=panel", "judge.judges.o3.budget_usd=0.0001"], "exceeds judge.judges.o3.budget_usd, 0.0001"),
    ):
        repository.configure(*overrides)
        run = repository.stage("judge", environment=environment)
        assert run.code == 1
        assert words in run.output.splitlines()[-1]
        assert not server[1].bodies
    repository.configure("judge=o3")
    run = repository.stage("judge", environment=environment)
    assert run.code == 0, run.output
    assert "announces that o3 shuts down on 2026-12-11" in run.output
    assert "about $0." in run.output
    metrics = judge_metrics(repository)
    n = metrics["skills"]
    assert metrics["usage"]["price_usd"] == pytest.approx(n * (40 * 2 + 60 * 0.5 + 20 * 8) / 1e6, abs=1e-4)
    assert set(server[1].keys) == {"Bearer a-planted-key"}
    assert "max_completion_tokens" in server[1].bodies[0]
    assert "max_tokens" not in server[1].bodies[0]
    assert whatever_holds(repository, ["a-planted-key"]) == []


@pytest.mark.slow
def test_an_experiment_with_a_paid_judge_leaves_no_key_anywhere(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    environment = {"OPENAI_BASE_URL": server[0], "OPENAI_API_KEY": "a-planted-key"}
    run = repository.run("dvc", "exp", "run", "-n", "judged", "-S", "judge=o3", environment=environment)
    assert (run.code, run.ran) == (0, ["judge", "metrics", "report"]), run.output
    assert set(server[1].keys) == {"Bearer a-planted-key"}
    assert whatever_holds(repository, ["a-planted-key"]) == []


def test_failed_verdicts_fail_the_stage_and_keep_the_others(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    write_sample(repository, ["V-Ray", "broken 1", "Tact"])
    stage(repository, server[0], "judge.max_retries=0")
    run = repository.run("python", "-m", "hardsoft.stages.judge")
    assert run.code == 1
    assert "1 of 3 rows failed (InternalServerError" in run.output
    assert "the other 2 verdicts are stored" in run.output
    stage(repository, server[0], "judge.max_retries=0", "judge.max_error_share=0.5")
    repository.staged("judge")
    assert judge_metrics(repository)["outcomes"]["error"] == 1
    assert server[1].seen["V-Ray"] == 1


BATCH = ("judge.batch=true", "judge.batch_poll_s=0.02")


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_a_batch_gives_the_same_verdicts_at_half_the_price(
    server: tuple[str, type[JudgeHandler]], repository: Repository, endpoint: str
) -> None:
    skills = ["V-Ray", "Empathy", "Tact", "Zeal", "long" if endpoint == "/v1/responses" else "refused"]
    write_sample(repository, skills)
    environment = {"OPENAI_BASE_URL": server[0], "OPENAI_API_KEY": "a-planted-key"}
    repository.configure("judge=openai", *BATCH, f"judge.batch_endpoint={endpoint}")
    run = repository.stage("judge", environment=environment)
    assert run.code == 0, run.output
    assert "batch batch-0 has 5 questions" in run.output
    assert not server[1].bodies, "nothing is asked one by one"
    metrics = judge_metrics(repository)
    assert metrics["outcomes"]["answered"] == 4
    assert metrics["outcomes"]["refused"] + metrics["outcomes"]["truncated"] == 1
    assert metrics["usage"]["price_usd"] == pytest.approx(0.5 * 5 * (40 * 2 + 60 * 0.1 + 20 * 10) / 1e6, abs=1e-4)
    verdicts = [json.loads(line) for line in repository.read("data/processed/verdicts.jsonl").rstrip("\n").split("\n")]
    assert {row["skill"]: row["verdict"] for row in verdicts}["Empathy"] == "Soft"
    (line, *_) = map(json.loads, server[1].files["file-0"].splitlines())
    assert (line["method"], line["url"]) == ("POST", endpoint)
    form = line["body"]["text"]["format"] if endpoint == "/v1/responses" else line["body"]["response_format"]["json_schema"]
    assert form["strict"] is True
    repository.configure("judge=openai")
    repository.stage("judge", environment=environment)
    assert (len(server[1].batches), server[1].bodies) == (1, []), "the same verdicts count outside a batch"


def test_a_batch_is_collected_by_the_next_run_after_a_kill(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    write_sample(repository, ["V-Ray", "Empathy", "Tact"])
    stage(repository, server[0], *BATCH)
    killed_while_its_batch_runs(repository, server[1])
    write_sample(repository, ["V-Ray", "Empathy", "Tact", "New"])
    second = repository.staged("judge")
    assert "batch batch-0 is an earlier run's" in second.output
    assert "1 calls to the judge (0 verdicts are stored)" in second.output
    assert server[1].seen == {"V-Ray": 1, "Empathy": 1, "Tact": 1, "New": 1}


def start_judging(repository: Repository) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hardsoft.stages.judge"]
    return subprocess.Popen(command, cwd=repository.path, env=os.environ | {"PYTHONPATH": "src"}, stderr=subprocess.DEVNULL)


def killed_while_its_batch_runs(repository: Repository, handler: type[JudgeHandler]) -> None:
    handler.polls = 10**9
    run = start_judging(repository)
    while not any(batch["polls"] > 2 for batch in handler.batches.values()):
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    handler.polls = 0


def test_a_batch_that_is_paid_for_is_collected_by_a_run_without_batches(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0], *BATCH)
    killed_while_its_batch_runs(repository, server[1])
    write_sample(repository, ["V-Ray", "Empathy", "New"])
    stage(repository, server[0])
    assert "batch batch-0 is an earlier run's, and paid for" in repository.staged("judge").output
    assert (len(server[1].batches), len(server[1].bodies)) == (1, 1)
    assert server[1].seen == {"V-Ray": 1, "Empathy": 1, "New": 1}


def test_a_batch_under_way_holds_up_neither_other_batches_nor_other_judges(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    """The batches of a panel are sent before one is waited for, so is another experiment's; another judge need not wait."""
    server_judge = (f"+judge@judge.judges.{name}=server" for name in ("b", "c"))
    overrides = ["judge=panel", "~judge.judges.openai", "~judge.judges.o3", *server_judge]
    for name in ("b", "c"):
        set_to = {"base_url": server[0], "model": name, "batch": "true", "batch_poll_s": 0.02}
        overrides += [f"judge.judges.{name}.{key}={value}" for key, value in set_to.items()]
    write_sample(repository, ["V-Ray", "Empathy"])
    repository.configure(*overrides)
    server[1].polls = 10**9
    runs = [start_judging(repository)]
    while len(server[1].batches) < 2:
        time.sleep(0.01)
    write_sample(repository, ["Empathy", "New"])
    runs.append(start_judging(repository))
    while len(server[1].batches) < 4:
        time.sleep(0.01)
    stage(repository, server[0])
    repository.staged("judge")
    server[1].polls = 0
    assert [run.wait() for run in runs] == [0, 0]
    held = [len(server[1].files[batch["file"]].splitlines()) for batch in server[1].batches.values()]
    assert (held, len(server[1].bodies)) == ([2, 2, 1, 1], 2), "each judge is asked once about each skill"


@pytest.mark.parametrize(
    ("lost", "words"),
    [("batch", "batch batch-0 is not to be found with"), ("output", "batch batch-0 has ended, but its answers are")],
)
def test_a_batch_that_is_lost_is_paid_again_only_when_told_so(
    server: tuple[str, type[JudgeHandler]], repository: Repository, lost: str, words: str
) -> None:
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0], *BATCH)
    killed_while_its_batch_runs(repository, server[1])
    if lost == "batch":
        server[1].batches["batch-1"] = server[1].batches.pop("batch-0")
    else:
        server[1].batches["batch-0"]["fault"] = "lost output"
    for _ in range(2):
        run = repository.stage("judge")
        assert (run.code, len(server[1].batches)) == (1, 1)
        assert words in run.output.splitlines()[-1]
        assert "judge.resubmit=true asks and pays again" in run.output.splitlines()[-1]
    stage(repository, server[0], "judge.resubmit=true")
    assert words in repository.staged("judge").output
    assert len(server[1].bodies) == 2
    write_sample(repository, ["V-Ray", "Empathy", "New"])
    stage(repository, server[0])
    repository.staged("judge")
    assert len(server[1].bodies) == 3


def test_a_batch_whose_creations_reply_is_lost_is_made_once(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0], *BATCH)
    server[1].batches["batch-0"] = {"file": "another's", "endpoint": "/v1/chat/completions", "polls": 0, "fault": ""}
    server[1].creation = "reset"
    repository.staged("judge")
    assert list(server[1].batches) == ["batch-0", "batch-1"]
    assert server[1].seen == {"V-Ray": 1, "Empathy": 1}


def test_a_batch_is_made_once_though_its_run_is_killed_before_it_knows_its_name(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0], *BATCH)
    server[1].creation = "held"
    run = start_judging(repository)
    while not server[1].batches:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    server[1].creation = ""
    assert "batch batch-0 is an earlier run's" in repository.staged("judge").output
    assert (list(server[1].batches), server[1].seen) == (["batch-0"], {"V-Ray": 1, "Empathy": 1})


@pytest.mark.slow
def test_ten_kills_of_a_run_in_batches_pay_for_no_question_twice(
    server: tuple[str, type[JudgeHandler]], repository: Repository
) -> None:
    """While its batch is created, waited for or collected."""
    draw, skills = random.Random(0), [f"Skill {number}" for number in range(40)]
    write_sample(repository, skills)
    stage(repository, server[0], *BATCH)
    server[1].polls = 10**9
    for kill in range(10):
        before = len(server[1].keys)
        run = start_judging(repository)
        while len(server[1].keys) == before and not any(batch["polls"] > 2 * kill for batch in server[1].batches.values()):
            time.sleep(0.001)
        time.sleep(draw.random() * 0.05)
        run.send_signal(signal.SIGKILL)
        run.wait()
    server[1].polls = 0
    repository.staged("judge")
    assert len(server[1].batches) == 1
    assert server[1].seen == dict.fromkeys(skills, 1)


def test_a_batchs_faults_are_faults_of_rows(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    skills = ["V-Ray", "broken 1", "Tact", "Zeal"]
    write_sample(repository, skills)
    stage(repository, server[0], *BATCH)
    run = repository.stage("judge")
    assert run.code == 1
    assert "1 of 4 rows failed (server_error: internal)" in run.output
    server[1].fault = "expired"
    write_sample(repository, [f"Skill {number}" for number in range(6)])
    run = repository.stage("judge")
    assert "3 of 6 rows failed (batch_expired" in run.output
    assert "the other 3 verdicts are stored" in run.output
    server[1].fault = ""
    repository.staged("judge")
    assert len(server[1].files["file-2"].splitlines()) == 3, "the rest only"
    assert all(server[1].seen[f"Skill {number}"] >= 1 for number in range(6))


@pytest.mark.parametrize(
    ("fault", "words"), [("failed", "batch batch-0 failed: the queue is full"), ("unknown model", "m-batch")]
)
def test_a_batch_that_the_provider_refuses_is_one_line(
    server: tuple[str, type[JudgeHandler]], repository: Repository, fault: str, words: str
) -> None:
    server[1].fault = fault
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0], *BATCH)
    run = repository.stage("judge")
    assert run.code == 1
    assert words in run.output.splitlines()[-1]


def test_a_batch_is_no_larger_than_the_provider_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardsoft.servers.batch.MOST_REQUESTS", 3)
    batches = Batches(LLMJudge(option("http://a/v1"), "", NO_KEY).server, "/v1/chat/completions", 1.0)
    bodies = {str(number): {"model": "m", "messages": []} for number in range(8)}
    assert [len(part) for part in batches.in_batches(bodies)] == [3, 3, 2]
    monkeypatch.setattr("hardsoft.servers.batch.MOST_BYTES", 1)
    assert [len(part) for part in batches.in_batches(bodies)] == [1] * 8


def test_another_model_than_the_one_asked_for_is_told(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    write_sample(repository, ["V-Ray", "Empathy"])
    stage(repository, server[0])
    repository.staged("judge")
    assert "replied_by" not in judge_metrics(repository), "a date more is the same model"
    stage(repository, server[0], "judge.model=large")
    assert repository.staged("judge").output.count("asked for large, and was answered by m-2026") == 1
    assert judge_metrics(repository)["replied_by"] == ["m-2026"]


def test_a_panel_has_no_judge_twice() -> None:
    overrides = ["judge=panel", "judge.judges.o3.model=gpt-6.1-sol", "judge.judges.o3.reasoning_effort=low"]
    with pytest.raises(InputError, match=r"openai and o3 are one judge .* judge\.judges\.openai\.repeats=2"):
        config(*overrides)
    config(*overrides, "judge.judges.o3.blind=false")


def test_the_majority_of_repeats_and_judges_counts(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    skills = ["V-Ray", "Empathy", "wavering", "Tact"]
    write_sample(repository, skills)
    server_judge = (f"+judge@judge.judges.{name}=server" for name in ("b", "c"))
    overrides = ["judge=panel", "~judge.judges.openai", "~judge.judges.o3", *server_judge]
    for name in ("b", "c"):
        overrides += [f"judge.judges.{name}.base_url={server[0]}", f"judge.judges.{name}.model={name}"]
    repository.configure(*overrides, "judge.judges.b.repeats=2")
    run = repository.staged("judge")
    assert "b: 8 calls" in run.output
    assert "c: 4 calls" in run.output
    rows = [json.loads(line) for line in repository.read("data/processed/verdicts.jsonl").splitlines()]
    assert [(row["judge"], row["repeat"]) for row in rows] == [("b", 1), ("b", 2), ("c", 1)] * 4
    agreement = judge_metrics(repository)["agreement"]
    first = [row["verdict"] for row in rows if row["skill"] == "wavering"]
    assert len(set(first)) == 2, "the server gives its verdicts on this one in turn"
    assert agreement["flip_rate"] == {"b": 0.25 if first[0] != first[1] else 0.0, "c": None}
    assert 0 < agreement["krippendorff_alpha"] < 1
    assert 0 < agreement["fleiss_kappa"] < 1
    repository.staged("metrics")
    accuracy = json.loads(repository.read("metrics/accuracy.json"))
    assert accuracy["sample"]["hard"]["n"] == 4
    before = len(server[1].bodies)
    repository.staged("judge")
    assert len(server[1].bodies) == before, "repeats are stored too"


@pytest.mark.xdist_group("served")
def test_a_real_server_that_knows_no_schemas(served: str, repository: Repository) -> None:
    """The small model is no judge: what it says is an outcome of its row, paid once, whatever it is."""
    stage(repository, served, f"judge.model={CHECKPOINT}", "judge.max_completion_tokens=40", "judge.concurrency=1")
    repository.staged("judge")
    metrics = judge_metrics(repository)
    assert sum(metrics["outcomes"].values()) == metrics["skills"] > 0
    assert metrics["outcomes"]["error"] == 0
    assert metrics["usage"]["output_tokens"] > 0
    repository.staged("judge")
    assert judge_metrics(repository)["stored"] == metrics["skills"]


def test_no_sample_is_no_fault(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    write_sample(repository, [])
    stage(repository, server[0])
    repository.staged("judge")
    assert (judge_metrics(repository)["skills"], server[1].bodies) == (0, [])


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_judging_killed_at_random_moments_asks_for_the_rest_only(
    server: tuple[str, type[JudgeHandler]], repository: Repository, kills: int
) -> None:
    skills = [f"Skill {number}" for number in range(15 * kills)]
    write_sample(repository, skills)
    stage(repository, server[0], "judge.concurrency=4")
    server[1].delay = 0.02
    draw = random.Random(kills)
    command = [sys.executable, "-m", "hardsoft.stages.judge"]
    for _ in range(kills):
        before = len(server[1].bodies)
        run = subprocess.Popen(command, cwd=repository.path, env=os.environ | {"PYTHONPATH": "src"}, stderr=subprocess.DEVNULL)
        while len(server[1].bodies) < before + draw.randint(1, 12) and run.poll() is None:
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.wait()
    repository.staged("judge")
    assert all(server[1].seen[skill] >= 1 for skill in skills)
    asked_again = sum(count - 1 for count in server[1].seen.values())
    assert asked_again <= 4 * kills, "none is asked twice but those in flight at a kill"
    undisturbed = repository.read("data/processed/verdicts.jsonl")
    repository.staged("judge", "--no-store")
    assert repository.read("data/processed/verdicts.jsonl") == undisturbed
