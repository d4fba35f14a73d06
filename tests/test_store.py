"""The row store: what it finds, and that nothing in its file can crash a run or give a wrong answer."""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardsoft.config.compose import configuration
from hardsoft.config.engines import EngineConfig
from hardsoft.config.fields import Section
from hardsoft.config.judges import LLMJudgeConfig, PanelJudgeConfig
from hardsoft.config.load import load_config
from hardsoft.config.machine import Machine, guess_machine, machine_on
from hardsoft.config.schema import Config, ModelConfig, PromptConfig, QuantizationConfig
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.engines.stored import complete
from hardsoft.prompting.prompts import read_prompt
from hardsoft.store.key import COUNTS, HARMLESS, completion_setting, verdict_setting
from hardsoft.store.lookup import StoredRows
from hardsoft.store.rows import Store, Value, canonical, default_path, make_keys
from tests.support.repositories import ROOT

numbers = count()
SETTING = {"kind": "test", "model": {"name": "m"}}
QUESTIONS = [f"question {number}" for number in range(200)]


def keys(questions: Sequence[str] = QUESTIONS) -> list[bytes]:
    return list(make_keys(SETTING, questions))


def value(text: str) -> Value:
    return {"text": text, "probabilities": [0.1, 0.2, 0.7]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".cache" / "rows.sqlite"


def fill(path: Path) -> None:
    Store(path).put(SETTING, [(key, value(f"answer to {question}")) for key, question in zip(keys(), QUESTIONS, strict=True)])


def test_what_was_stored_is_found_and_nothing_else(path: Path) -> None:
    fill(path)
    wanted = keys(["new", *QUESTIONS])
    assert Store(path).find(SETTING, wanted) == set(wanted[1:])
    found = Store(path).get(wanted)
    assert found == {key: value(f"answer to {question}") for key, question in zip(wanted[1:], QUESTIONS, strict=True)}
    assert Store(path).get(list(make_keys({**SETTING, "model": {"name": "other"}}, QUESTIONS))) == {}


def test_the_first_value_stays(path: Path) -> None:
    store, (key,) = Store(path), keys(["q"])
    store.put(SETTING, [(key, value("first"))])
    store.put(SETTING, [(key, value("second"))])
    assert store.get([key]) == {key: value("first")}


def test_without_a_path_rows_end_with_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(None)
    store.put(SETTING, [(key, value("a")) for key in keys()])
    assert len(store.get(keys())) == 200
    assert Store(None).get(keys()) == {}
    assert not list(tmp_path.iterdir())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), st.text(), max_size=10))
def test_any_text_comes_back(tmp_path: Path, rows: dict[str, str]) -> None:
    store = Store(tmp_path / "any.sqlite")
    setting = {"kind": "any", "number": next(numbers)}
    stored = {key: {"text": text} for key, text in zip(make_keys(setting, rows), rows.values(), strict=True)}
    store.put(setting, stored.items())
    assert store.get(list(stored)) == stored


def test_only_the_rows_that_the_store_lacks_are_asked_and_each_is_stored_as_it_arrives(path: Path) -> None:
    fill(path)
    questions = [f"question {number}" for number in range(190, 1400)]
    stored = StoredRows(Store(path), SETTING, questions)
    with stored.to_ask() as rows:
        asked = list(rows)
        stored.keep([(asked[0], value("now"))])
        assert Store(path).get(keys([questions[asked[0]]])), "not stored before the others are there"
        stored.keep([(row, value("now")) for row in asked[1:-1]])  # the last one fails
    assert sorted(asked) == list(range(10, 1210))
    assert asked != sorted(asked), "in the order of names"
    failed = asked[-1]
    expected = [value(f"answer to {question}") for question in questions[:10]] + [value("now")] * 1200
    assert list(stored.read()) == [None if row == failed else one for row, one in enumerate(expected)]

    with StoredRows(Store(path), SETTING, questions).to_ask() as again:
        assert list(again) == [failed]
    nothing = StoredRows(Store(path), SETTING, [])
    with nothing.to_ask() as none:
        assert (list(none), list(nothing.read())) == ([], [])


def test_a_device_that_was_guessed_wrong_is_looked_up_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = configuration("model=tiny", "prompt=label_only")
    prompt, store = read_prompt(config.prompt), Store(path)
    cpu, gpu = (machine_on(config, device) for device in ("cpu", "cuda"))
    completion = Completion("Answer: Hard", "stop", 3)

    def keep(machine: Machine, skill: str) -> None:
        rows = StoredRows(store, completion_setting(config, machine), [canonical(prompt.messages(skill))])
        rows.keep([(0, asdict(completion))])

    keep(cpu, "V-Ray")
    keep(gpu, "Tact")
    monkeypatch.setattr("hardsoft.engines.stored.guess_machine", lambda _: gpu)
    monkeypatch.setattr("hardsoft.engines.stored.find_machine", lambda _: cpu)
    settled = complete(config, prompt, ["V-Ray"], store)
    assert (list(settled.read(range(1))), list(settled.tally.rows)) == ([completion], [])
    computed = complete(config, prompt, ["V-Ray", "Tact"], store)
    assert (list(computed.tally.rows), computed.machine) == ([1], cpu)
    monkeypatch.setattr("hardsoft.engines.stored.find_machine", lambda _: pytest.fail("nothing is missing"))
    assert list(complete(config, prompt, ["Tact"], store).read(range(1))) == [completion]


def test_a_damaged_file_never_gives_a_wrong_answer(path: Path) -> None:
    fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    good = path.read_bytes()
    draw = random.Random(1)
    refused = []
    right = {key: value(f"answer to {question}") for key, question in zip(keys(), QUESTIONS, strict=True)}
    for trial in range(20):
        for file in path.parent.iterdir():
            file.unlink()
        damaged = bytearray(good)
        if trial % 4 == 0:
            del damaged[draw.randrange(len(good)) :]
        for _ in range(draw.choice((1, 8, 200))):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            store = Store(path)
            assert all(right[key] == found for key, found in store.get(keys()).items())
            store.find(SETTING, keys())
            store.summary()
        except InputError as error:
            refused.append(str(error))
        assert path.exists()
    assert len(refused) > 5
    assert all(line.startswith(f"{path}: damaged (") for line in refused)
    assert all(line.endswith("move it away, or run with --no-store") for line in refused)


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_store_is_one_clear_line(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"rows\.sqlite: damaged .*move it away, or run with --no-store"):
        Store(path).find(SETTING, keys())
    assert path.read_bytes() == content


def test_another_programs_database_is_one_clear_line(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE row (something TEXT)")
    connection.close()
    with pytest.raises(InputError, match="damaged"):
        fill(path)


WRITER = """
import sys
import threading
import time
from pathlib import Path
from hardsoft.store.rows import Store, make_keys
me = sys.argv[2]
store = Store(Path(sys.argv[1]))
for number in range(150):
    shared, own = make_keys({"kind": "test"}, [f"question {number}", f"question {number} of {me}"])
    store.put({"kind": "test"}, [(shared, {"text": f"answer {number}"}), (own, {"text": me})])
    assert store.get([shared, own]) == {shared: {"text": f"answer {number}"}, own: {"text": me}}
"""


def test_several_processes_share_it_and_none_loses_a_row(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    names = ["a", "b", "c", "d"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=environment) for name in names]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0, 0]
    questions = {f"question {number}": f"answer {number}" for number in range(150)}
    questions |= {f"question {number} of {name}": name for number in range(150) for name in names}
    found = Store(path).get(list(make_keys({"kind": "test"}, questions)))
    assert list(found.values()) != []
    assert {key: one["text"] for key, one in found.items()} == dict(
        zip(make_keys({"kind": "test"}, questions), questions.values(), strict=True)
    )


FULL = """
import resource, sys
from pathlib import Path
from hardsoft.core.errors import InputError
from hardsoft.store.rows import Store, make_keys
path = Path(sys.argv[1])
store = Store(path)
before, *keys = make_keys({"kind": "test"}, ["before", *map(str, range(1000))])
store.put({"kind": "test"}, [(before, {"text": "kept"})])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    for key in keys:
        store.put({"kind": "test"}, [(key, {"text": "x" * 2000})])
except InputError as error:
    print(error)
"""


def test_a_full_disk_is_one_clear_line_and_keeps_what_is_there(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert "rows stored before are kept" in run.stdout
    before, first = make_keys({"kind": "test"}, ["before", "0"])
    assert Store(path).get([before, first]) == {before: {"text": "kept"}, first: {"text": "x" * 2000}}


def test_runs_side_by_side_ask_for_a_row_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[int] = []
    begun = threading.Event()

    def one() -> None:
        stored = StoredRows(Store(path), SETTING, QUESTIONS)
        with stored.to_ask() as rows:
            begun.set()
            asked.extend(rows)
            time.sleep(0.3)
            stored.keep([(row, value("a")) for row in rows])

    first = threading.Thread(target=one)
    first.start()
    begun.wait()
    one()
    first.join()
    assert sorted(asked) == list(range(len(QUESTIONS)))
    assert "waits for it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file", encoding="utf-8")
    with pytest.raises((InputError, OSError), match=r"\.cache"):
        Store(tmp_path / ".cache" / "rows.sqlite").put(SETTING, [(key, value("a")) for key in keys(["q"])])


def test_it_is_shown_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    path = tmp_path / default_path()
    fill(path)
    (key,) = make_keys({"kind": "new"}, ["q"])
    Store(path).put({"kind": "new"}, [(key, value("a"))])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE setting SET used = used - 40 WHERE text LIKE '%test%'")
    connection.close()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "hardsoft.store", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    lines = run().splitlines()
    assert lines[0].startswith(".cache/rows-2.sqlite: ")
    assert [(line.split()[0], line.split()[2]) for line in lines[2:]] == [("1", "0"), ("200", "40")]
    assert lines[3].endswith("test m")
    for wrong in ("-1", "x", "nan"):
        with pytest.raises(subprocess.CalledProcessError) as error:
            run("--prune", wrong)
        assert error.value.returncode == 1
        assert "0 or more" in error.value.stderr
    Store(path).find(SETTING, keys())  # a use
    assert "0 rows deleted" in run("--prune", "30")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE setting SET used = used + 3 WHERE text LIKE '%test%'")  # by a clock that was wrong
    connection.close()
    assert "0 rows deleted" in run("--prune", "1")
    assert "201 rows deleted" in run("--prune", "0")
    assert Store(path).get(keys()) == {}


def test_its_place_is_the_main_repository_and_its_name_tells_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("HARDSOFT_STORE", raising=False)
    assert default_path() == Path(".cache/rows-2.sqlite")
    monkeypatch.setenv("DVC_ROOT", "/somewhere")
    assert default_path() == Path("/somewhere/.cache/rows-2.sqlite")
    monkeypatch.setenv("HARDSOFT_STORE", "/local")
    assert default_path() == Path("/local/rows-2.sqlite")


def changed(config: Config, **sections: dict[str, object]) -> Config:
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()})


@pytest.mark.parametrize("section", COUNTS, ids=lambda section: section.__name__)
def test_every_field_that_can_reach_a_row_either_counts_or_is_harmless(section: type[Section]) -> None:
    """A new one must be put into one of the two sets beside `completion_setting`."""
    assert set(section.model_fields) == COUNTS[section] | HARMLESS[section]
    assert not COUNTS[section] & HARMLESS[section]


def test_every_section_that_can_reach_a_row_is_looked_at() -> None:
    of_a_row = {ModelConfig, QuantizationConfig, PromptConfig, *get_args(get_args(EngineConfig)[0]), LLMJudgeConfig}
    assert set(COUNTS) == set(HARMLESS) == of_a_row


# Another value of each field that counts; a device and a batch size count by what they mean on a machine.
HALF = ["model=tiny", "prompt=label_only", "model.dtype=bfloat16"]
OTHERS: dict[str, tuple[list[str], dict[str, object]]] = {
    "model": (
        HALF,
        {
            "source": "hub",
            "name": "models/tiny",
            "revision": None,  # of a folder there is none
            "chat_template": {"date_string": "today"},
            "dtype": "float16",
            "readout": "models/readouts/smollm2.safetensors",
        },
    ),
    "quantization": ([*HALF, "quantization=nf4"], {"method": "fp4", "double_quant": False, "dequantize": False}),
    "prompt": (HALF, {"mode": "reason", "max_new_tokens": 5}),
    "engine": (HALF, {"batch_size": 7, "device": "cuda"}),
}
SERVED: dict[str, object] = {
    "base_url": "http://other/v1",
    "model": "other",
    "identity": "other",
    "endpoint": "decisions",
    "parameters": {"repetition_penalty": 1.0},
    "prefill": False,
}


VERDICTS: dict[str, object] = {
    "base_url": "http://other/v1",
    "model": "other",
    "identity": "other",
    "endpoint": "decisions",
    "reasoning_effort": "high",
    "max_completion_tokens": 5,
}


def completion_settings(config: Config) -> str:
    return json.dumps(completion_setting(config, guess_machine(config)))


@pytest.mark.parametrize(
    ("overrides", "section", "field", "other"),
    [
        *(
            (overrides, section, field, other)
            for section, (overrides, others) in OTHERS.items()
            for field, other in others.items()
        ),
        *((["model=tiny", "prompt=label_only", "engine=server"], "engine", field, other) for field, other in SERVED.items()),
        (["model=tiny", "engine=ray", "engine.batch_size=8"], "engine", "num_gpus", 1.0),
        ([*HALF, "engine=ray"], "engine", "batch_size", 7),
    ],
)
def test_whatever_counts_is_part_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], section: str, field: str, other: object
) -> None:
    monkeypatch.chdir(ROOT)
    config = configuration(*overrides)
    assert field in COUNTS[type(getattr(config, section))]
    same = completion_settings(changed(config, **{section: {field: other}})) == completion_settings(config)
    assert same == (field == "revision"), "a folder's files count, not what somebody calls their version"


def test_the_commit_of_a_hub_model_is_part_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = configuration("model=qwen_3_8b")
    assert completion_settings(changed(config, model={"revision": "b" * 40})) != completion_settings(config)


def test_what_is_harmless_is_no_part_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = configuration("model=tiny")
    harmless: dict[str, dict[str, object]] = {
        "model": {"gated": True, "dep": "x"},
        "prompt": {"template": "x", "codebook": True, "dep": "x", "system": "x", "prefill": "x", "contextual_calibration": True},
        "engine": {"processes": 2, "graphs": False, "max_error_share": 0.5, "batch_size": 8},
    }
    assert completion_settings(changed(config, **harmless)) == completion_settings(config), "batches change nothing in fp32"
    asked: dict[str, object] = {"api_key_env": "X", "concurrency": 3, "timeout_s": 1.0, "max_retries": 1, "max_error_share": 0.5}
    served = configuration("model=tiny", "engine=server")
    assert completion_settings(changed(served, engine=asked)) == completion_settings(served)
    judge = configuration("judge=openai").judge
    assert isinstance(judge, LLMJudgeConfig)
    cheaper = {"repeats": 3, "batch": True, "blind": False, "budget_usd": None, "batch_poll_s": 1.0, "expected_output_tokens": 1}
    assert verdict_setting(judge.model_copy(update=asked | cheaper)) == verdict_setting(judge)
    for field in COUNTS[LLMJudgeConfig]:
        assert verdict_setting(judge.model_copy(update={field: 5})) != verdict_setting(judge)


@pytest.mark.parametrize(("field", "other"), VERDICTS.items())
def test_a_panel_tells_its_judges_apart_by_whatever_counts(field: str, other: object) -> None:
    """Two whose verdicts are stored alike are refused; the rule stands in config/ and here."""
    judge = configuration("judge=openai").judge
    assert isinstance(judge, LLMJudgeConfig)
    assert set(VERDICTS) == COUNTS[LLMJudgeConfig]
    different = judge.model_copy(update={field: other})
    PanelJudgeConfig(kind="panel", judges={"a": judge, "b": different})
    with pytest.raises(ValueError, match="a and b are one judge asked in one way"):
        PanelJudgeConfig(kind="panel", judges={"a": judge, "b": judge})


def test_a_new_field_enters_where_it_differs_from_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that rows stored before it keep their keys."""

    class Newer(ModelConfig):
        letters: str = "none"

    monkeypatch.chdir(ROOT)
    counts: dict[type[Section], set[str]] = {**COUNTS, Newer: COUNTS[ModelConfig] | {"letters"}}
    monkeypatch.setattr("hardsoft.store.key.COUNTS", counts)
    config = configuration("model=tiny")
    before = Newer(**config.model.model_dump())
    assert completion_settings(config.model_copy(update={"model": before})) == completion_settings(config)
    after = before.model_copy(update={"letters": "models/letters"})
    assert completion_setting(config.model_copy(update={"model": after}), guess_machine(config))["letters"] == "models/letters"


def test_another_model_file_is_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "models/tiny/checkpoint", tmp_path / "checkpoint")
    monkeypatch.chdir(ROOT)
    config = load_config()
    monkeypatch.chdir(tmp_path)
    config = changed(config, model={"name": "checkpoint", "dep": "checkpoint"})
    before = completion_setting(config, machine_on(config, "cpu"))
    assert completion_setting(config, machine_on(config, "cpu")) == before
    weights = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert completion_setting(config, machine_on(config, "cpu")) != before
