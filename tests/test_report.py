"""The page for people: in a real browser, without network, with names that try to be code."""

import csv
import json
import re

import pytest
from playwright.sync_api import Browser, Dialog, Page

from tests.support.repositories import Repository

EVIL = "<script>alert(1)</script>"


def rewrite(repository: Repository, path: str, text: str) -> None:
    """Replace an output, which may be a read-only link into DVC's cache."""
    (repository.path / path).unlink()
    repository.write(path, text)


def opened(repository: Repository, browser: Browser, **options: object) -> tuple[Page, list[str]]:
    """The page, and what went wrong on it: requests, errors and dialogs."""
    page = browser.new_page(**options)  # type: ignore[arg-type]
    wrong: list[str] = []
    page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))

    def dismiss(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.goto((repository.path / "data/processed/report.html").as_uri())
    return page, wrong


def test_the_page_of_a_run(repository: Repository, browser: Browser) -> None:
    page, wrong = opened(repository, browser)
    accuracy = json.loads(repository.read("metrics/accuracy.json"))
    text = page.locator("#headlines").inner_text()
    assert f"{accuracy['sample']['hard']['accuracy']:.1%}" in text
    assert "Answering Hard every time would score" in text
    assert page.locator("svg").count() == 5
    assert page.locator("#count").inner_text() == "24 skills"
    differing = sum(row["skills"] != "0" and row["predicted"] != row["judged"] for row in confusion(repository))
    assert (page.locator("#disagreements > details").count() > 0) == (differing > 0)
    page.get_by_label("Label", exact=True).select_option("Soft")
    soft = json.loads(repository.read("metrics/labels.json"))["labels"]["Soft"]
    assert page.locator("#count").inner_text() == f"{soft} skills"
    page.get_by_label("Label", exact=True).select_option("")
    skill = repository.read("data/processed/hard_soft_skills.csv").splitlines()[1].partition(";")[0]
    page.get_by_label("Search names and reasoning").fill(skill.upper())
    summary = page.locator("#skills summary").filter(has_text=skill).first
    summary.focus()
    page.keyboard.press("Enter")
    assert "Answer: " in page.locator("#skills details[open] pre").first.inner_text()
    assert "models/" in page.content()
    assert wrong == []
    page.close()


def confusion(repository: Repository) -> list[dict[str, str]]:
    return list(csv.DictReader(repository.read("metrics/confusion.csv").splitlines()))


def test_on_a_phone_and_in_the_dark(repository: Repository, browser: Browser) -> None:
    page, wrong = opened(repository, browser, viewport={"width": 360, "height": 700}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(255, 255, 255)"
    assert wrong == []
    page.close()


def test_names_and_texts_are_shown_not_run(repository: Repository, browser: Browser) -> None:
    skill = repository.read("data/processed/hard_soft_skills.csv").splitlines()[1].rpartition(";")[0].strip('"')
    for path in ("data/processed/labels.csv", "data/processed/sample.csv", "data/interim/probabilities.csv"):
        rewrite(repository, path, repository.read(path).replace(f"\n{skill},", f"\n{EVIL},"))
    judged = [json.loads(line) for line in repository.read("data/processed/verdicts.jsonl").splitlines()]
    judged[0] |= {"skill": EVIL, "verdict": "Unknown", "outcome": "answered", "rationale": f"</pre>{EVIL}"}
    rewrite(repository, "data/processed/verdicts.jsonl", "".join(f"{json.dumps(row)}\n" for row in judged))
    completions = repository.read("data/interim/completions.jsonl").splitlines()
    hostile = json.dumps(
        {**json.loads(completions[0]), "skill": EVIL, "completion": f"</script>{EVIL}<img src=x onerror=alert(2)>"}
    )
    rewrite(repository, "data/interim/completions.jsonl", "\n".join([hostile, *completions[1:], ""]))
    repository.staged("report")
    page, wrong = opened(repository, browser)
    page.get_by_label("Search names and reasoning").fill("alert(1)")
    assert page.locator("#count").inner_text() == "1 skills"
    summary = page.locator("#skills summary").first
    assert EVIL in summary.inner_text()
    summary.click()
    assert "onerror=alert(2)" in page.locator("#skills details[open] pre").first.inner_text()
    assert EVIL in page.locator("#disagreements").inner_text()
    assert wrong == []
    page.close()


def test_ten_thousand_skills_open_and_filter_at_once(repository: Repository, browser: Browser) -> None:
    """Of twelve thousand the page holds ten, and says so."""
    names = [f"Skill {number:05d}" for number in range(12_000)]
    rewrite(
        repository,
        "data/processed/labels.csv",
        "skill,label,outcome,mentions\n" + "".join(f"{name},Hard,answered,1\n" for name in names),
    )
    rows = ({"skill": name, "completion": f" {name} is a tool. It is learned.\nAnswer: Hard"} for name in names)
    rewrite(repository, "data/interim/completions.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    rewrite(
        repository,
        "data/interim/probabilities.csv",
        "skill,hard,soft,unknown\n" + "".join(f"{name},0.9,0.1,0.0\n" for name in names),
    )
    repository.done("python", "-m", "hardsoft.stages.report")  # in a process: Vega numbers its gradients in each
    first = repository.read("data/processed/report.html")
    page, wrong = opened(repository, browser)
    assert page.locator("#count").inner_text() == "10,000 skills"
    assert "The page holds 10,000 of them" in page.locator("#subset").inner_text()
    took = page.evaluate("""() => {
        const query = document.getElementById("query"), begin = performance.now();
        query.value = "skill 0599";
        query.dispatchEvent(new Event("input"));
        return performance.now() - begin;
    }""")
    assert took < 1000, "generous: a machine with other work"
    assert re.fullmatch(r"\d+ skills", page.locator("#count").inner_text())
    assert wrong == []
    page.close()
    repository.done("python", "-m", "hardsoft.stages.report")
    assert repository.read("data/processed/report.html") == first


@pytest.mark.parametrize("sample", ["all", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("frozen", "by_mention"))])
def test_every_kind_of_sample_gives_figures_and_a_page(repository: Repository, sample: str) -> None:
    repository.configure(f"sample={sample}")
    for stage in ("sample", "judge", "metrics", "report"):
        repository.staged(stage)
    accuracy = json.loads(repository.read("metrics/accuracy.json"))
    assert (accuracy["population"]["by_mention"]["accuracy"] is None) == (sample == "frozen")
    if sample == "all":
        answered = accuracy["population"]["answered"]
        assert answered["low"] == answered["accuracy"] == answered["high"], "nothing is left to estimate"
        assert accuracy["judged"]["accuracy"] == accuracy["reference"]["accuracy"]


def test_nothing_judged_says_so_and_warns_of_no_division(repository: Repository) -> None:
    rewrite(repository, "data/processed/sample.csv", "skill,label,weight\n")
    for stage in ("judge", "metrics", "report"):
        run = repository.run("python", "-W", "error", "-m", f"hardsoft.stages.{stage}")
        assert run.code == 0, run.output
    accuracy = json.loads(repository.read("metrics/accuracy.json"))
    assert accuracy["population"]["answered"]["accuracy"] is None
    assert "was sampled" in accuracy["population"]["answered"]["reason"]
    assert "not estimable" in repository.read("data/processed/report.html")
    assert "No skill was judged." in repository.read("data/processed/report.html")
