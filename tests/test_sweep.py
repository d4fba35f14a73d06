"""Sweeps for real: Hydra's multirun over temporary DVC experiments, in a repository with few skills and the tiny model."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hardsoft.config.compose import compose
from hardsoft.core.errors import InputError
from hardsoft.sweep.__main__ import check, planned
from hardsoft.sweep.claims import claim, name_given, release
from hardsoft.sweep.job import experiment_name, own_device
from hardsoft.sweep.objective import SECTIONS
from hardsoft.sweep.stop import stop
from tests.support.repositories import ROOT, Repository, Run, commit
from tests.support.servers import JudgeHandler

SWEEP = ("python", "-m", "hardsoft.sweep", "--multirun")


def experiments(repository: Repository) -> dict[str, dict[str, Any]]:
    """Parameters of the repository's experiments by name, as `dvc exp show` has them."""
    shown = json.loads(repository.done("dvc", "exp", "show", "--json").output)
    found = [one for revision in shown for one in revision["experiments"] or []]
    return {one["name"]: one["revs"][0]["data"]["params"]["params.yaml"]["data"] for one in found}


def ran(repository: Repository, sweep: str) -> list[list[str]]:
    """The stages that each job of a sweep ran, in the order of the jobs."""
    logs = sorted((repository.path / ".cache/sweeps" / sweep).glob("*/output.log"), key=lambda path: int(path.parent.name))
    return [Run(0, log.read_text(encoding="utf-8")).ran for log in logs]


def assert_untouched(repository: Repository) -> None:
    """The workspace is as committed, and no experiment's folder and no lock is left."""
    assert repository.done("git", "status", "--porcelain").output == ""
    assert not list((repository.path / ".dvc/tmp/exps/standalone").glob("tmp*"))
    assert not list(repository.path.glob(".cache/sweeps/*/*/process"))
    assert not (repository.path / ".dvc/tmp/lock").exists() or repository.done("dvc", "status").code == 0


def test_what_fails_is_named_and_does_not_lose_the_others(repository: Repository) -> None:
    run = repository.run(*SWEEP, "judge=o3,reference", "sweep.name=20261129")
    assert run.code == 1, run.output
    assert list(experiments(repository)) == ["20261129-1-reference"]
    (failed,) = [line for line in run.output.splitlines() if line.startswith("failed: ")]
    assert failed.startswith("failed: 20261129-0-o3: ")
    assert "missing: OPENAI_API_KEY" in failed
    assert run.output.splitlines()[-1].startswith("sweep: 1 of 2 experiments failed; .cache/sweeps/20261129/")
    assert not (repository.path / ".cache/sweeps/20261129/claim").exists()
    assert_untouched(repository)


@pytest.mark.slow
def test_each_combination_is_an_experiment(repository: Repository) -> None:
    run = repository.run(*SWEEP, "prompt=cot,zero_shot", "judge=reference,o3", "sample.per_label=2", "sweep.name=try")
    assert run.code == 1, run.output
    found = experiments(repository)
    assert {name: params["prompt"]["template"] for name, params in found.items()} == {
        "try-0-cot-reference-2": "conf/prompt/cot.jinja",
        "try-2-zero_shot-reference-2": "conf/prompt/zero_shot.jinja",
    }
    assert "try-2-zero_shot-reference-2 against try-0-cot-reference-2, at" in run.output
    failed = [line for line in run.output.splitlines() if line.startswith("failed: ")]
    assert [line.split(": ")[1] for line in failed] == ["try-1-cot-o3-2", "try-3-zero_shot-o3-2"]
    assert all("missing: OPENAI_API_KEY" in line for line in failed)
    assert run.output.splitlines()[-1].startswith("sweep: 2 of 4 experiments failed; .cache/sweeps/try/")
    assert "Traceback" not in run.output
    stages = ran(repository, "try")
    assert stages[0] == ["sample", "judge", "metrics", "report"]
    assert stages[2][0] == "classify"
    assert_untouched(repository)

    again = repository.run(*SWEEP, "prompt=cot,zero_shot", "sweep.name=try")
    assert (again.code, again.output.count("\n")) == (1, 1)
    assert "there is an experiment try-" in again.output


def test_globs_ranges_and_presets_are_swept(template: Path) -> None:
    with contextlib.chdir(template):
        prompts = [one[0] for one in planned(["prompt=glob(*)"])]
        assert prompts == [f"prompt={name}" for name in ("codebook", "cot", "label_only", "study", "zero_shot")]
        assert planned(["sample.per_label=range(2,4)", "prompt=choice(cot,study)"]) == [
            [f"sample.per_label={size}", f"prompt={prompt}"] for size in (2, 3) for prompt in ("cot", "study")
        ]
        assert planned(["+experiment=quick", "quantization=none,nf4"]) == [
            ["+experiment=quick", f"quantization={method}"] for method in ("none", "nf4")
        ]


def test_names_tell_what_differs() -> None:
    assert experiment_name("s", 3, ["prompt=cot", "+experiment=quick", "sample.per_label=50"]) == "s-3-cot-quick-50"
    assert experiment_name("s", 0, ["model.name=/a/b..c/d"]) == "s-0-a_b.c_d"
    assert len(experiment_name("s", 0, ["model.name=" + "x" * 300])) == 100


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prompt=cot,typo"], "typo"),
        (["no_such.key=1,2"], "no_such"),
        (["prompt=glob(nothing*)"], "nothing to run"),
        (["prompt=choice("], "Hydra does not understand: no viable alternative at input 'choice('"),
        (["metrics.confidence=0.9,2"], "metrics.confidence"),
        (["hydra/sweeper=optuna", "prompt=cot,typo"], "typo"),
        (["prompt=cot", "sweep.trails=3"], "sweep.trails"),
        (["prompt=cot", "hydra/launcher=jobllib"], "jobllib"),
        (["prompt=cot", "sweep.objective=refrence.balanced_accuracy"], "did you mean reference?"),
    ],
)
def test_what_cannot_run_is_said_before_the_first_job(template: Path, overrides: list[str], message: str) -> None:
    with contextlib.chdir(template), pytest.raises(InputError) as raised:
        check(overrides)
    assert message in str(raised.value)


def test_sweeps_need_a_repository_without_conflicts(fresh: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    fresh.write("conf/config.yaml", fresh.read("conf/config.yaml") + "\n# mine\n")
    with contextlib.chdir(fresh.path):
        check(["prompt=cot"])
    assert "uncommitted changes enter every experiment: conf/config.yaml" in capsys.readouterr().err
    commit(fresh)
    fresh.done("git", "checkout", "-q", "-b", "other", "HEAD^")
    fresh.write("conf/config.yaml", fresh.read("conf/config.yaml") + "\n# theirs\n")
    commit(fresh)
    assert fresh.run("git", "merge", "main").code == 1
    with contextlib.chdir(fresh.path), pytest.raises(InputError, match=r"git: conf.config.yaml unmerged"):
        check(["prompt=cot"])
    (fresh.path / ".dvc").rename(fresh.path / "dvc")
    with contextlib.chdir(fresh.path), pytest.raises(InputError, match="DVC repository"):
        check(["prompt=cot"])
    (fresh.path / ".git").rename(fresh.path / "git")
    with contextlib.chdir(fresh.path), pytest.raises(InputError, match="git repository"):
        check(["prompt=cot"])


def test_two_sweeps_never_have_one_name(fresh: Repository) -> None:
    with contextlib.chdir(fresh.path):
        assert claim(None).startswith(time.strftime("%m%d-"))
        assert claim("mine") == "mine"
        Path(".cache/sweeps/mine/0").mkdir()
        Path(".cache/sweeps/mine/0/process").write_text("host 1", encoding="utf-8")
        with pytest.raises(InputError, match="a sweep of that name runs"):
            claim("mine")
        for name in ("a b", "x..y", "-x", "x/y"):
            with pytest.raises(InputError, match="can name an experiment"):
                claim(name)


def test_a_misspelt_objective_is_said_where_figures_are_known(fresh: Repository) -> None:
    (fresh.path / "metrics").mkdir(exist_ok=True)
    fresh.write("metrics/accuracy.json", (ROOT / "metrics/accuracy.json").read_text(encoding="utf-8"))
    assert tuple(json.loads(fresh.read("metrics/accuracy.json"))) == SECTIONS
    with contextlib.chdir(fresh.path):
        check(["prompt=cot", "sweep.objective=sample.overall.accuracy"])
        with pytest.raises(InputError, match=r"sweep.objective reference.balanced_acuracy: .*mean reference.balanced_accuracy\?"):
            check(["prompt=cot", "sweep.objective=reference.balanced_acuracy"])
        with pytest.raises(InputError, match=r"but \['correct', "):
            check(["prompt=cot", "sweep.objective=sample.overall"])
        fresh.write("metrics/accuracy.json", '{"reference": {"reason": "no labels"}}')
        check(["prompt=cot"])


def test_files_that_git_does_not_know_are_said_before_the_first_job(fresh: Repository) -> None:
    fresh.write("conf/prompt/mine.yaml", fresh.read("conf/prompt/cot.yaml").replace("cot", "mine"))
    fresh.write("conf/prompt/mine.jinja", fresh.read("conf/prompt/cot.jinja"))
    with contextlib.chdir(fresh.path):
        check(["prompt=cot,study"])
        with pytest.raises(InputError, match=r"^conf/prompt/mine.jinja, conf/prompt/mine.yaml are not in git; `git add` them$"):
            check(["prompt=cot,mine"])
        fresh.done("git", "add", "conf/prompt/mine.jinja")
        with pytest.raises(InputError, match=r"^conf/prompt/mine.yaml is not in git; `git add` it$"):
            check(["+experiment=quick", "prompt=mine"])
        fresh.done("git", "add", "conf/prompt/mine.yaml")
        check(["prompt=mine"])


@pytest.mark.parametrize(
    ("override", "name"),
    [("=20261129", "20261129"), ("=true", "true"), ("='007'", "007"), ("=1e3", "1e3"), ("=", None), ("=null", None)],
)
def test_a_name_is_what_was_written(override: str, name: str | None) -> None:
    assert name_given(["prompt=cot", f"sweep.name{override}"]) == name


def test_the_name_of_a_sweep_that_died_is_free(fresh: Repository) -> None:
    source = "import time; from hardsoft.sweep.claims import claim; claim('mine'); print('claimed', flush=True); time.sleep(60)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen([sys.executable, "-c", source], cwd=fresh.path, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with contextlib.chdir(fresh.path):
            with pytest.raises(InputError, match="a sweep of that name runs"):
                claim("mine")
            process.kill()
            process.wait()
            Path(".cache/sweeps/mine/0").mkdir()
            Path(".cache/sweeps/mine/0/process").write_text(f"{platform.node()} {process.pid}", encoding="utf-8")
            assert claim("mine") == "mine"
            release("mine")
            assert claim("mine") == "mine"


def test_jobs_side_by_side_have_a_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    with contextlib.chdir(tmp_path):
        with own_device("JoblibLauncher") as first, own_device("JoblibLauncher") as second:
            assert [first, second] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}]
        with own_device("JoblibLauncher") as free:
            assert free == first
        with own_device("BasicLauncher") as alone, own_device("SlurmLauncher") as slurm:
            assert (alone, slurm) == ({}, {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with own_device("JoblibLauncher") as none:
        assert none == {}


def test_experiments_on_other_nodes_keep_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(tmp_path):
        theirs, process = Path(".dvc/tmp/exps/standalone/tmp1"), Path("sweep/0/process")
        for path in (theirs, process.parent):
            path.mkdir(parents=True)
        process.write_text("another-node 1", encoding="utf-8")
        stop(Path("sweep"))
        assert theirs.exists()
        assert process.exists()
        assert "scancel" in capsys.readouterr().err
        process.unlink()
        stop(Path("sweep"))
        assert not theirs.exists()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP))]
)
def test_ctrl_c_keeps_what_is_finished_and_leaves_nothing_else(repository: Repository, number: signal.Signals) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in ("OPENAI_API_KEY", "PYTHONPATH")}
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": "src"}
    command = (*SWEEP, "sample.per_label=2,3,4", "sweep.name=stopped")
    with subprocess.Popen(
        command, cwd=repository.path, env=environment | paths, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        output = ""
        while "stopped-1-3: begins" not in output:
            output += process.stdout.readline()
        while not list(repository.path.glob(".cache/sweeps/stopped/1/process")):
            time.sleep(0.1)
        deadline = time.monotonic() + 60
        while not (places := list(repository.path.glob(".dvc/tmp/exps/standalone/tmp*"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)  # into DVC's work
        process.send_signal(number)
        output += process.stdout.read()
    assert places, "DVC runs experiments elsewhere than where `stop` tidies"
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert list(experiments(repository)) == ["stopped-0-2"]
    assert "stopped-2-4" not in output
    assert_untouched(repository)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_side_by_side_give_the_same_experiments(repository: Repository, launcher: str) -> None:
    both = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    run = repository.run(*SWEEP, "sample.per_label=2,3", f"hydra/launcher={launcher}", *both, "sweep.name=side")
    assert run.code == 0, run.output
    assert set(experiments(repository)) == {"side-0-2", "side-1-3"}
    assert "side-1-3 against side-0-2" in run.output
    assert_untouched(repository)


@pytest.mark.slow
def test_two_sweeps_at_once(repository: Repository) -> None:
    environment = os.environ | {"PYTHONPATH": "src"}
    running = [
        subprocess.Popen(
            [sys.executable, *SWEEP[1:], f"sample.per_label={sizes}", f"sweep.name={name}"],
            cwd=repository.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, sizes in (("one", "2,3"), ("two", "4,5"))
    ]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert set(experiments(repository)) == {"one-0-2", "one-1-3", "two-0-4", "two-1-5"}
    assert_untouched(repository)


@pytest.mark.slow
def test_a_search_finds_the_largest_figure_and_tries_nothing_twice(repository: Repository) -> None:
    run = repository.run(
        *SWEEP, "hydra/sweeper=optuna", "~sweep.space.prompt", "sweep.trials=4", "sweep.name=search",
        "sweep.objective=reference.accuracy", "clean.abstain_below=choice(0.001,0.999)",
    )  # fmt: skip
    assert run.code == 0, run.output
    found = experiments(repository)
    assert len(found) == 2
    assert "best of 2: reference.accuracy" in run.output
    assert_untouched(repository)


@pytest.mark.slow
def test_six_variants_ask_the_judge_for_each_skill_once(server: tuple[str, type[JudgeHandler]], repository: Repository) -> None:
    url, handler = server
    run = repository.run(
        *SWEEP, "prompt=cot,zero_shot,label_only", "metrics.confidence=0.9,0.95", "sample=all", "judge=server", "judge.model=m",
        f"judge.base_url={url}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "sweep.name=six",
    )  # fmt: skip
    assert run.code == 0, run.output
    assert len(experiments(repository)) == 6
    assert set(handler.seen.values()) == {1}
    assert len(handler.seen) == 24
    assert_untouched(repository)


@pytest.mark.slow
def test_the_queue_gives_the_same_experiments(repository: Repository) -> None:
    repository.done("dvc", "exp", "run", "--queue", "-S", "prompt=cot,label_only")
    for _ in range(3):
        repository.done("dvc", "queue", "start", "-j", "2")
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(experiments(repository)) < 2:
            time.sleep(2)
        if "Queued" not in repository.done("dvc", "queue", "status").output:
            break
    swept = repository.run(*SWEEP, "prompt=cot,label_only", "sweep.name=same")
    assert swept.code == 0, swept.output
    found = experiments(repository)
    templates = sorted(params["prompt"]["template"] for params in found.values())
    assert templates == ["conf/prompt/cot.jinja"] * 2 + ["conf/prompt/label_only.jinja"] * 2
    assert all("classify" not in stages for stages in ran(repository, "same"))


@pytest.mark.slow
def test_an_experiment_travels_to_another_machine(repository: Repository, tmp_path: Path) -> None:
    """Over a bare git repository and a folder as DVC's remote; there, without the model."""
    remote, origin = tmp_path / "remote", tmp_path / "origin.git"
    repository.done("git", "init", "-q", "--bare", "-b", "main", str(origin))
    repository.done("git", "remote", "add", "origin", str(origin))
    repository.done("dvc", "remote", "add", "-d", "storage", str(remote))
    commit(repository)
    repository.done(*SWEEP, "prompt=zero_shot", "sweep.name=far")
    repository.done("git", "push", "-q", "origin", "main")
    repository.done("dvc", "push", "dvc.yaml", "--run-cache")
    repository.done("dvc", "exp", "push", "origin", "far-0-zero_shot")
    labels = repository.done(
        "python", "-c", "import dvc.api; print(dvc.api.read('data/processed/labels.csv', rev='far-0-zero_shot'))"
    )

    second = Repository(tmp_path / "second")
    repository.done("git", "clone", "-q", str(origin), str(second.path))
    second.done("dvc", "exp", "pull", "origin", "far-0-zero_shot")
    second.done("dvc", "exp", "apply", "far-0-zero_shot")
    second.done("dvc", "repro")
    assert second.read("data/processed/labels.csv").strip() == labels.output.strip()

    third = Repository(tmp_path / "third")
    repository.done("git", "clone", "-q", str(origin), str(third.path))
    third.done("dvc", "exp", "pull", "origin", "far-0-zero_shot")
    third.done("dvc", "exp", "apply", "far-0-zero_shot")
    shutil.rmtree(third.path / "models/tiny/checkpoint")
    run = third.done("dvc", "repro", "--pull", "--allow-missing")
    assert "classify" not in run.ran
    assert third.read("data/processed/labels.csv").strip() == labels.output.strip()


@pytest.mark.slow
def test_a_winner_becomes_the_default_from_the_run_cache(repository: Repository) -> None:
    repository.done(*SWEEP, "prompt=zero_shot", "sweep.name=won")
    repository.write("conf/config.yaml", repository.read("conf/config.yaml").replace("prompt: cot", "prompt: zero_shot"))
    repository.done("python", "-m", "hardsoft.config")
    run = repository.done("dvc", "repro")
    assert run.ran == []
    assert repository.done("dvc", "metrics", "diff", "won-0-zero_shot").output.strip() == ""
    commit(repository)
    assert repository.done("dvc", "exp", "run").ran == []


def test_every_preset_composes() -> None:
    for path in sorted((ROOT / "conf/experiment").glob("*.yaml")):
        assert compose([f"+experiment={path.stem}"])
