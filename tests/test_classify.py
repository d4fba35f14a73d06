"""The classify stage as a process: killed and resumed, in several processes, with little and much to do."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.models import complete, text
from tests.support.repositories import Repository, header_and_rows, many_skills, stored

OUTPUTS = ("data/interim/completions.jsonl", "data/interim/probabilities.csv")


def classify(repository: Repository, *options: str) -> dict[str, object]:
    repository.staged("classify", *options)
    throughput: dict[str, object] = json.loads(repository.read("metrics/throughput.json"))
    return throughput


def start(repository: Repository) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": "src"}
    command = [sys.executable, "-m", "hardsoft.stages.classify"]
    return subprocess.Popen(command, cwd=repository.path, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(("processes", "at"), [(2, 40), pytest.param(1, 1, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_where_it_was(fresh: Repository, processes: int, at: int) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(120))
    fresh.configure(f"engine.processes={processes}", "engine.batch_size=16")
    run = start(fresh)
    while stored(fresh) < at:
        assert run.poll() is None, "the run ended before it was killed"
        time.sleep(0.005)
    workers = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive, "a killed run leaves no process behind"
    kept = stored(fresh)
    assert at <= kept < 120
    assert not (fresh.path / OUTPUTS[0]).exists()

    fresh.configure("engine.processes=1", "engine.batch_size=16")  # however many began it
    resumed = classify(fresh)
    assert (resumed["skills"], resumed["stored"]) == (120, kept)
    rows = [json.loads(line) for line in fresh.read(OUTPUTS[0]).splitlines()]
    uninterrupted = complete([row["skill"] for row in rows], max_new_tokens=100)
    assert [(row["completion"], row["finish_reason"], row["tokens"]) for row in rows] == list(map(text, uninterrupted))


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_no_row_that_was_stored(fresh: Repository) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(900))
    fresh.configure("engine.processes=1", "engine.batch_size=16")
    draw, kept = random.Random(0), [0]
    for _ in range(20):
        run, wanted = start(fresh), kept[-1] + draw.randint(1, 20)
        while stored(fresh) < wanted:
            assert run.poll() is None, "the run ended before it was killed"
            time.sleep(0.002)
        run.send_signal(signal.SIGKILL)
        run.wait()
        kept.append(stored(fresh))
    assert kept == sorted(kept)
    assert kept[-1] < 900
    resumed = classify(fresh)
    assert (resumed["skills"], resumed["stored"]) == (900, kept[-1])
    rows = [json.loads(line) for line in fresh.read(OUTPUTS[0]).splitlines()]
    uninterrupted = complete([row["skill"] for row in rows], max_new_tokens=100)
    assert [(row["completion"], row["finish_reason"], row["tokens"]) for row in rows] == list(map(text, uninterrupted))


def test_ten_new_skills_classify_ten(repository: Repository) -> None:
    skills = repository.read("data/interim/skills.csv")
    texts = repository.read(OUTPUTS[0])
    again = classify(repository)
    assert (again["stored"], again["skills_per_second"], again["seconds"], again["tokens"]) == (
        skills.count("\n") - 1,
        None,
        None,
        0,
    )
    assert repository.read(OUTPUTS[0]) == texts
    new = [f"Brand New Skill {number}" for number in range(10)]
    (repository.path / "data/interim/skills.csv").unlink()  # a link into DVC's cache may be read-only
    repository.write("data/interim/skills.csv", skills + "".join(f"{name},1\n" for name in new))
    more = classify(repository)
    assert (more["skills"], more["stored"]) == (skills.count("\n") + 9, skills.count("\n") - 1)


@pytest.mark.slow
def test_two_runs_at_once_share_the_store(repository: Repository) -> None:
    (repository.path / "data/interim/skills.csv").unlink()
    repository.write("data/interim/skills.csv", many_skills(120))
    repository.configure("engine.processes=1")
    runs = [start(repository), start(repository)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert classify(repository)["stored"] == 120


def test_label_mode_writes_three_probabilities_and_calibration_changes_them(repository: Repository) -> None:
    repository.configure("prompt=label_only")
    classify(repository)
    repository.staged("clean")
    header, rows = header_and_rows(repository, OUTPUTS[1])
    assert header == ["skill", "hard", "soft", "unknown"]
    labels = {row[0]: row[1] for row in header_and_rows(repository, "data/processed/labels.csv")[1]}
    for skill, *values in rows:
        probabilities = dict(zip(("Hard", "Soft", "Unknown"), map(float, values), strict=True))
        assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)
        assert probabilities[labels[skill]] >= max(probabilities.values())
    assert json.loads(repository.read("metrics/labels.json"))["outcomes"]["unparseable"] == 0

    repository.configure("prompt=label_only", "prompt.contextual_calibration=true")
    calibrated = classify(repository)
    assert (calibrated["skills"], calibrated["stored"]) == (len(rows), len(rows))
    assert header_and_rows(repository, OUTPUTS[1])[1] != rows


def test_label_mode_needs_a_place_for_the_label(repository: Repository) -> None:
    repository.configure("prompt=cot", "prompt.mode=label")
    run = repository.run("python", "-m", "hardsoft.stages.classify")
    assert (run.code, run.output.count("\n")) == (1, 1)
    assert "prompt.prefill 'Step 1:'" in run.output


def test_ctrl_c_is_one_line_and_keeps_what_is_done(fresh: Repository) -> None:
    (fresh.path / "data/interim").mkdir()
    fresh.write("data/interim/skills.csv", many_skills(400))
    fresh.configure("engine.processes=2", "engine.batch_size=16")
    environment = os.environ | {"PYTHONPATH": "src"}
    command = [sys.executable, "-m", "hardsoft.stages.classify"]
    run = subprocess.Popen(command, cwd=fresh.path, env=environment, stderr=subprocess.PIPE, start_new_session=True, text=True)
    while stored(fresh) < 20:
        assert run.poll() is None
        time.sleep(0.005)
    os.killpg(run.pid, signal.SIGINT)
    _, error = run.communicate(timeout=30)
    assert run.returncode == 130
    assert error.strip().splitlines()[-1].startswith("classify: interrupted")
    assert "Traceback" not in error
    assert stored(fresh) >= 20
