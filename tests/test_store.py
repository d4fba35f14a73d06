"""The row store: what it finds, and that nothing in its file can crash a run or give a wrong answer."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardsoft.config.schema import Config, load_config
from hardsoft.core.errors import InputError
from hardsoft.store.key import setting_of
from hardsoft.store.rows import Store, default_path
from tests.conftest import ROOT

numbers = count()
SETTING = {"kind": "test", "model": {"name": "m"}}


def value(text: str) -> dict[str, object]:
    return {"text": text, "probabilities": [0.1, 0.2, 0.7]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".cache" / "rows.sqlite"


def fill(path: Path, rows: int = 200) -> list[str]:
    questions = [f"question {number}" for number in range(rows)]
    Store(path).put(SETTING, [(question, value(f"answer to {question}")) for question in questions])
    return questions


def test_what_was_stored_is_found_and_nothing_else(path: Path) -> None:
    questions = fill(path)
    found = Store(path).get(SETTING, ["new", *questions, questions[0]])
    assert sorted(found) == list(range(1, 202))
    assert found[1] == found[201] == value("answer to question 0")
    assert Store(path).get({**SETTING, "model": {"name": "other"}}, questions) == {}


def test_the_first_value_stays(path: Path) -> None:
    store = Store(path)
    store.put(SETTING, [("q", value("first"))])
    store.put(SETTING, [("q", value("second"))])
    assert store.get(SETTING, ["q"]) == {0: value("first")}


def test_no_path_no_store() -> None:
    store = Store(None)
    store.put(SETTING, [("q", value("a"))])
    assert store.get(SETTING, ["q"]) == {}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), st.text(), max_size=10))
def test_any_text_comes_back(tmp_path: Path, rows: dict[str, str]) -> None:
    store = Store(tmp_path / "any.sqlite")
    setting = {"kind": "any", "number": next(numbers)}
    store.put(setting, [(question, {"text": text}) for question, text in rows.items()])
    assert store.get(setting, list(rows)) == {place: {"text": text} for place, text in enumerate(rows.values())}


def test_a_damaged_file_never_gives_a_wrong_answer(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    good = path.read_bytes()
    draw = random.Random(1)
    set_aside = 0
    for trial in range(120):
        for file in path.parent.iterdir():
            file.unlink()
        damaged = bytearray(good)
        if trial % 4 == 0:
            del damaged[draw.randrange(len(good)) :]
        for _ in range(draw.choice((1, 8, 200))):
            if damaged:
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        store = Store(path)
        found = store.get(SETTING, questions)
        assert all(found[row] == value(f"answer to {questions[row]}") for row in found)
        store.put(SETTING, [(question, value(f"answer to {question}")) for question in questions])
        assert all(found == value(f"answer to {questions[row]}") for row, found in Store(path).get(SETTING, questions).items())
        store.summary()
        set_aside += any("corrupt" in file.name for file in path.parent.iterdir())
    assert set_aside > 20
    assert "is corrupt: set aside as rows.sqlite.corrupt-1" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"no database at all", b"", b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_store_is_set_aside(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    questions = fill(path)
    assert len(Store(path).get(SETTING, questions)) == 200


def test_another_programs_database_is_set_aside(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE row (something TEXT)")
    connection.close()
    assert len(Store(path).get(SETTING, fill(path))) == 200
    assert (path.parent / "rows.sqlite.corrupt-1").exists()


WRITER = """
import sys
from itertools import count
from pathlib import Path
from hardsoft.store.rows import Store
store = Store(Path(sys.argv[1]))
for number in range(300):
    question = f"question {number}"
    store.put({"kind": "test"}, [(question, {"text": f"answer to {question}"})])
    assert store.get({"kind": "test"}, [question]) == {0: {"text": f"answer to {question}"}}
"""


def test_several_processes_share_it(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment) for _ in range(4)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    assert len(Store(path).get({"kind": "test"}, [f"question {number}" for number in range(300)])) == 300


FULL = """
import resource, sys
from pathlib import Path
from hardsoft.core.errors import InputError
from hardsoft.store.rows import Store
path = Path(sys.argv[1])
store = Store(path)
store.put({"kind": "test"}, [("before", {"text": "kept"})])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    for number in range(1000):
        store.put({"kind": "test"}, [(f"question {number}", {"text": "x" * 2000})])
except InputError as error:
    print(error)
"""


def test_a_full_disk_is_one_clear_line_and_keeps_what_is_there(path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run([sys.executable, "-c", FULL, str(path)], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("\n") == 1
    assert "rows stored before are kept" in run.stdout
    assert Store(path).get({"kind": "test"}, ["before", "question 0"]) == {0: {"text": "kept"}, 1: {"text": "x" * 2000}}


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("a file", encoding="utf-8")
    with pytest.raises((InputError, OSError), match=r"\.cache"):
        Store(tmp_path / ".cache" / "rows.sqlite").put(SETTING, [("q", value("a"))])


def test_it_is_shown_and_pruned(path: Path) -> None:
    questions = fill(path)
    store = Store(path)
    store.get(SETTING, questions[:50])
    store.put({"kind": "new"}, [("q", value("a"))])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE setting SET used = used - 40 WHERE text LIKE '%test%'")
    connection.close()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "hardsoft.store", *arguments]
        return subprocess.run(command, cwd=path.parents[1], env=environment, capture_output=True, text=True, check=True).stdout

    lines = run().splitlines()
    assert lines[0].startswith(".cache/rows.sqlite: ")
    assert [line.split()[:3:2] for line in lines[2:]] == [["1", "0"], ["200", "50"]]
    assert lines[3].endswith("test m")
    for wrong in ("-1", "x", "nan"):
        with pytest.raises(subprocess.CalledProcessError) as error:
            run("--prune", wrong)
        assert error.value.returncode == 1
        assert "0 or more" in error.value.stderr
    assert "200 rows deleted" in run("--prune", "30")
    assert "1 rows deleted" in run("--prune", "0")
    assert Store(path).get(SETTING, questions) == {}


def test_its_place_is_the_main_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert default_path() == Path(".cache/rows.sqlite")
    monkeypatch.setenv("DVC_ROOT", "/somewhere")
    assert default_path() == Path("/somewhere/.cache/rows.sqlite")


def changed(config: Config, **sections: dict[str, object]) -> Config:
    return config.model_copy(update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()})


def test_whatever_can_change_a_completion_is_part_of_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config()
    usual = json.dumps(setting_of(config))
    half = changed(config, model={"dtype": "bfloat16"})
    others = [
        half,
        changed(half, engine={"batch_size": 8}),
        changed(config, quantization={"method": "nf4"}),
        changed(config, quantization={"method": "nf4", "dequantize": True}),
        changed(config, prompt={"max_new_tokens": 5}),
        changed(config, prompt={"mode": "label"}),
        changed(config, model={"name": "org/model", "revision": "a" * 40}),
        changed(config, model={"name": "org/model", "revision": "b" * 40}),
    ]
    settings_of_all = [json.dumps(setting_of(one)) for one in others]
    assert len({usual, *settings_of_all}) == len(others) + 1
    # What cannot change fp32 text, or is part of the question, is not.
    for same in (changed(config, engine={"batch_size": 8, "processes": 2}), changed(config, prompt={"prefill": "x"})):
        assert json.dumps(setting_of(same)) == usual


def test_another_model_file_is_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    shutil.copytree(ROOT / "models/embedded/checkpoint", tmp_path / "checkpoint")
    monkeypatch.chdir(ROOT)
    config = load_config()
    monkeypatch.chdir(tmp_path)
    config = changed(config, model={"name": "checkpoint", "dep": "checkpoint"})
    before = setting_of(config)
    assert setting_of(config) == before
    weights = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert setting_of(config) != before
