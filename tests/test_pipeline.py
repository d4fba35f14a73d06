"""The real pipeline in a real repository: which stages run when, and what they leave."""

import contextlib
import json
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.support.repositories import Repository, Run, commit, header_and_rows

STAGES = ["extract", "classify", "clean", "sample", "judge", "metrics", "report"]
OUTPUTS = {
    "data/interim/skills.csv": ["skill", "mentions"],
    "data/interim/probabilities.csv": ["skill", "hard", "soft", "unknown"],
    "data/processed/labels.csv": ["skill", "label", "outcome", "mentions"],
    "data/processed/sample.csv": ["skill", "label", "weight"],
    "metrics/confusion.csv": ["predicted", "judged", "skills", "share"],
    "metrics/counts.csv": ["kind", "name", "skills"],
    "metrics/precision.csv": ["label", "precision", "low", "high", "skills"],
    "metrics/reliability.csv": ["confidence", "accuracy", "low", "high", "skills"],
    "metrics/risk_coverage.csv": ["coverage", "accuracy", "confidence"],
}


def test_one_repro_runs_seven_stages_and_writes_every_file(reproduced: tuple[Path, Run]) -> None:
    path, run = reproduced
    repository = Repository(path)
    assert (run.code, run.ran) == (0, STAGES), run.output
    for name, columns in OUTPUTS.items():
        header, rows = header_and_rows(repository, name)
        assert header == columns
        assert rows, name

    skills = [row[0] for row in header_and_rows(repository, "data/interim/skills.csv")[1]]
    assert skills == sorted(skills)
    completions = [json.loads(line) for line in repository.read("data/interim/completions.jsonl").splitlines()]
    assert [row["skill"] for row in completions] == skills
    assert all(list(row) == ["skill", "completion", "finish_reason", "tokens"] for row in completions)

    study_format = repository.read("data/processed/hard_soft_skills.csv").splitlines()
    assert study_format[0] == "Skill;label"
    assert [line.rpartition(";")[0].strip('"') for line in study_format[1:]] == skills
    assert {line.rpartition(";")[2] for line in study_format[1:]} <= {"Hard", "Soft", "Unknown"}

    log = repository.read("data/processed/CoT.log")
    assert log.index("labels") < log.index("outcomes") < log.index("Skill: ")
    assert all(f"Skill: {row['skill']}\n\n{row['completion'].strip()}" in log for row in completions)

    verdicts = [json.loads(line) for line in repository.read("data/processed/verdicts.jsonl").splitlines()]
    assert all(list(row) == ["skill", "judge", "repeat", "verdict", "outcome", "rationale", "usage"] for row in verdicts)
    accuracy = json.loads(repository.read("metrics/accuracy.json"))
    assert list(accuracy) == ["sample", "population", "judged", "judge", "reference", "always_hard", "confidence", "outcomes"]
    assert list(accuracy["sample"]) == ["hard", "soft", "overall"]
    assert accuracy["reference"]["n"] == len(skills)
    labels = json.loads(repository.read("metrics/labels.json"))
    assert sum(labels["labels"].values()) == sum(labels["outcomes"].values()) == len(skills)


def test_a_second_repro_runs_nothing_and_git_is_clean_but_for_what_is_committed(reproduced: tuple[Path, Run]) -> None:
    repository = Repository(reproduced[0])
    assert repository.done("dvc", "repro").ran == []
    assert repository.done("git", "status", "--porcelain").output == ""


def test_metrics_and_plots_are_shown(reproduced: tuple[Path, Run]) -> None:
    repository = Repository(reproduced[0])
    assert "reference.balanced_accuracy" in repository.done("dvc", "metrics", "show").output
    repository.done("dvc", "plots", "show")
    page = repository.read("dvc_plots/index.html")
    assert all(title in page for title in ("Judged sample", "All skills", "Precision", "Reliability", "Abstaining"))
    assert "judge's verdict" in page
    repository.done("dvc", "plots", "diff", "HEAD")


# What a changed option changes at first, beside the report, which shows every option; what follows is run for real below.
CHANGES = {
    "prompt=zero_shot": ["classify"],
    "quantization=nf4": ["classify"],
    "engine.batch_size=32": ["classify"],
    "model.dtype=bfloat16": ["classify"],
    "model=llama_3_1_8b": ["classify"],
    "model.readout=models/readouts/smollm2.safetensors": ["classify", "metrics"],
    "clean.abstain_below=0.9": ["clean"],
    "sample.seed=7": ["sample", "metrics"],
    "judge=o3": ["judge"],
    "metrics.confidence=0.9": ["metrics"],
}


def test_a_changed_option_changes_its_own_stage_and_none_before(repository: Repository) -> None:
    for override, stages in CHANGES.items():
        repository.configure(override)
        with contextlib.chdir(repository.path), Repo() as dvc:
            changed = dvc.status()
        assert [stage for stage in STAGES[:-1] if stage in changed] == stages, override


def test_an_experiment_with_another_prompt_runs_classify_and_what_follows(repository: Repository) -> None:
    run = repository.done("dvc", "exp", "run", "-n", "zero-shot", "-S", "prompt=zero_shot")
    assert run.ran[:2] == ["classify", "clean"]
    assert "extract" not in run.ran
    difference = repository.done("dvc", "metrics", "diff", "HEAD").output
    assert "metrics/throughput.json" in difference
    assert "zero-shot" in repository.done("dvc", "exp", "show", "--csv").output


@pytest.mark.slow
def test_experiments_with_another_sample_or_confidence_run_no_earlier_stage(repository: Repository) -> None:
    sample = repository.done("dvc", "exp", "run", "-S", "sample.per_label=2")
    assert sample.ran == ["sample", "judge", "metrics", "report"]
    metrics = repository.done("dvc", "exp", "run", "-S", "sample.per_label=2", "-S", "metrics.confidence=0.9")
    assert metrics.ran == ["metrics", "report"]


@pytest.mark.slow
def test_a_queue_of_two_values_gives_two_experiments(repository: Repository) -> None:
    repository.done("dvc", "exp", "run", "--queue", "-S", "sample.per_label=2,3")
    repository.done("dvc", "queue", "start")
    for number in "12":
        repository.done("dvc", "queue", "logs", "--follow", json_names(repository)[int(number) - 1])
    shown = json.loads(repository.done("dvc", "exp", "show", "--json").output)
    sizes = {
        experiment["revs"][0]["data"]["params"]["params.yaml"]["data"]["sample"]["per_label"]
        for revision in shown
        for experiment in revision["experiments"] or []
    }
    assert sizes == {2, 3}
    assert repository.done("git", "status", "--porcelain").output == ""


def json_names(repository: Repository) -> list[str]:
    lines = repository.done("dvc", "queue", "status").output.splitlines()
    return [line.split()[0] for line in lines[1:] if line.strip() and "Worker" not in line]


def test_a_failed_stage_leaves_the_others_outputs_and_checkout_brings_its_own_back(repository: Repository) -> None:
    before = repository.read("data/processed/verdicts.jsonl")
    good = repository.read("data/reference/labels.csv")
    repository.write("data/reference/labels.csv", good.replace(",Soft,", ",Sofft,", 1))
    run = repository.run("dvc", "repro")
    assert run.code != 0
    assert "data/reference/labels.csv: line" in run.output
    assert "'Sofft'; it must be Hard, Soft or Unknown" in run.output
    assert "Traceback" not in run.output
    assert not (repository.path / "data/processed/verdicts.jsonl").exists()
    assert (repository.path / "data/processed/sample.csv").exists()
    repository.write("data/reference/labels.csv", good)
    repository.done("git", "checkout", "--", "metrics")
    repository.done("dvc", "checkout")
    assert repository.read("data/processed/verdicts.jsonl") == before
    assert repository.done("dvc", "repro").ran == []


def test_an_edited_comment_in_engines_runs_classify_from_the_store_without_torch(repository: Repository) -> None:
    with (repository.path / "src/hardsoft/engines/pool.py").open("a", encoding="utf-8") as file:
        file.write("# a comment\n")
    run = repository.run("dvc", "repro", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert (run.code, run.ran) == (0, ["classify"]), run.output
    imported = {line.rpartition("|")[2].strip() for line in run.output.splitlines() if line.startswith("import time:")}
    assert "hardsoft.store.rows" in imported
    assert not {name for name in imported if name.split(".")[0] in ("torch", "transformers", "bitsandbytes", "accelerate")}
    throughput = json.loads(repository.read("metrics/throughput.json"))
    assert throughput["stored"] == throughput["skills"] > 0


def test_own_skills_without_reference_labels_complete(fresh: Repository) -> None:
    """A person's own file, of another layout, tracked by DVC, and no reference label at all."""
    fresh.write("data/raw/mine.csv", "cand,what,kind\n1,Bid Writing,skill\n2,Kindness,skill\n2,Oslo,town\n")
    fresh.done("dvc", "add", "data/raw/mine.csv")
    options = fresh.read("conf/data/sample.yaml").replace("cv_skills.csv", "mine.csv").replace("labels.csv", "none.csv")
    for old, new in {"CANDIDATE_ID": "cand", "Skill_Type": "kind", "Professional_Skill": "skill", '";"': '","'}.items():
        options = options.replace(old, new)
    fresh.write("conf/data/mine.yaml", options.replace("skill: Skill", "skill: what"))
    commit(fresh)
    assert "data/raw/mine.csv\n" not in fresh.done("git", "ls-files").output
    run = fresh.run("dvc", "exp", "run", "-S", "data=mine")
    assert run.code == 0, run.output
    assert [row[0] for row in header_and_rows(fresh, "data/processed/labels.csv")[1]] == ["Bid Writing", "Kindness"]
    verdicts = [json.loads(line) for line in fresh.read("data/processed/verdicts.jsonl").splitlines()]
    assert all(row["verdict"] is None and row["outcome"] == "not_in_reference" for row in verdicts)
    accuracy = json.loads(fresh.read("metrics/accuracy.json"))
    for estimate in (*accuracy["sample"].values(), *accuracy["population"].values(), accuracy["reference"]):
        assert estimate["accuracy"] is None
        assert estimate["reason"]
    assert accuracy["always_hard"]["reason"]
    assert "2 skills" in fresh.read("data/processed/CoT.log")


def test_the_studys_setting_stops_before_it_loads_anything(repository: Repository) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    failed = repository.run("dvc", "exp", "run", "-S", "+experiment=study")
    assert failed.code != 0
    (line,) = [line for line in failed.output.splitlines() if line.startswith("classify: ")]
    assert all(name in line for name in ("a CUDA GPU", "HF_TOKEN", "OPENAI_API_KEY"))
    some = repository.stage("classify", environment={"HF_TOKEN": "x"})
    assert (some.code, some.output.count("\n")) == (1, 1)
    assert "a CUDA GPU" in some.output
    assert "HF_TOKEN" not in some.output
