"""Comparing experiments, in a real repository with real experiments."""

import json

import pytest

from hardsoft.compare import Variant, adjust, compare, flips, sentence, truths
from tests.support.repositories import Repository


def variant(name: str, labels: dict[str, str], verdicts: dict[str, str] | None = None) -> Variant:
    return Variant(name, labels, verdicts or {}, {}, {"sample": {"kind": "frozen"}})


OLD = variant("old", {f"s{n}": "Hard" for n in range(100)})
TRUTH = {f"s{n}": "Hard" if n < 60 else "Soft" for n in range(100)}


def test_a_better_variant() -> None:
    new = variant("new", {f"s{n}": "Hard" if n < 60 else "Soft" for n in range(100)})
    row = compare(new, OLD, TRUTH, 0.95)
    assert (row["n"], row["gained"], row["lost"], row["difference"]) == (100, 40, 0, pytest.approx(0.4))
    rows = [row]
    adjust(rows, 0.05)
    assert row["says"] == "new is better"
    assert "new is better" in sentence(row, "judge")
    changed = flips(new, OLD, {**TRUTH, "s60": "Unknown"})
    assert len(changed) == 40
    assert changed["right"].tolist().count("new") == 39


def test_no_difference_is_said_and_what_would_show_one() -> None:
    new = variant("new", {**OLD.labels, "s70": "Soft", "s71": "Soft", "s1": "Soft"})
    rows = [compare(new, OLD, TRUTH, 0.95), compare(OLD, OLD, TRUTH, 0.95)]
    adjust(rows, 0.05)
    assert [row["says"] for row in rows] == ["no difference shown"] * 2
    assert "no difference shown. Were it as large as seen, some 2,3" in sentence(rows[0], "reference")
    assert rows[1]["p"] == rows[1]["p_holm"] == 1.0


def test_what_does_not_outlast_holm_is_no_difference() -> None:
    new = variant("new", {**OLD.labels, **{f"s{n}": "Soft" for n in range(60, 67)}})
    alone = compare(new, OLD, TRUTH, 0.95)
    assert alone["says"] == "new is better"
    rows = [alone, *(compare(OLD, OLD, TRUTH, 0.95) for _ in range(3))]
    adjust(rows, 0.05)
    assert alone["p"] < 0.05 < alone["p_holm"]
    assert alone["says"] == "no difference shown"


def test_skills_with_other_verdicts_or_none_are_not_compared() -> None:
    one = variant("a", {"x": "Hard", "y": "Soft", "z": "Hard"}, {"x": "Hard", "y": "Soft"})
    other = variant("b", {"x": "Hard", "y": "Soft"}, {"x": "Hard", "y": "Hard"})
    assert truths(one, other, {}, "judge") == {"x": "Hard"}
    assert truths(one, other, {"z": "Hard", "y": "Soft"}, "reference") == {"y": "Soft"}
    row = compare(one, other, {}, 0.95)
    adjust([row], 0.05)
    assert "not estimable" in sentence(row, "judge")


@pytest.mark.slow
def test_experiments_are_listed_and_compared_with_a_baseline(repository: Repository) -> None:
    repository.done(
        "dvc", "exp", "run", "-n", "one-word", "-S", "prompt=label_only", "-S", "sample=frozen", "-S", "sample.fraction=0.9"
    )
    repository.done("git", "checkout", "-q", "--", ".")
    repository.done("dvc", "checkout")
    shown = repository.done("python", "-m", "hardsoft.compare").output
    assert "| workspace |" in shown
    assert "| one-word |" in shown
    assert "conf/prompt/label_only.jinja" in shown
    assert "one-word against workspace, at" in shown
    table = repository.done(
        "python", "-m", "hardsoft.compare", "one-word", "--baseline", "HEAD", "--flips", "--format", "json"
    ).output
    found = json.loads(table)
    assert [row["variant"] for row in found["estimates"]] == ["HEAD", "one-word"]
    assert found["comparisons"][0]["gained"] - found["comparisons"][0]["lost"] == pytest.approx(
        found["comparisons"][0]["difference"] * found["comparisons"][0]["n"]
    )
    assert len(found["flips"]) >= found["comparisons"][0]["gained"] + found["comparisons"][0]["lost"]
    for arguments, words in ((("nowhere",), "nowhere: "), (("--baseline", "HEAD~7"), "HEAD~7: ")):
        run = repository.run("python", "-m", "hardsoft.compare", *arguments)
        assert (run.code, len(run.output.splitlines())) == (1, 1), run.output
        assert words in run.output
    repository.done("dvc", "exp", "remove", "one-word")
    assert "no experiment is based on HEAD" in repository.run("python", "-m", "hardsoft.compare").output
