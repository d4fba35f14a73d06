"""Labels by hand: exported blind, taken in without overwriting any."""

import csv
import re
from html import unescape

import pytest
from playwright.sync_api import Browser

from tests.support.repositories import Repository


@pytest.fixture
def project(fresh: Repository) -> Repository:
    (fresh.path / "data/processed").mkdir(exist_ok=True)
    fresh.write(
        "data/processed/sample.csv", 'skill,label,weight\nV-Ray,Hard,1.0\nNew Craft,Hard,1.0\n"<b>Odd</b> & ""Co""",Soft,1.0\n'
    )
    fresh.write("data/reference/labels.csv", "skill,label,note\nV-Ray,Hard,a tool\nTact,Soft,\n")
    return fresh


def annotate(project: Repository, *arguments: str) -> str:
    return project.done("python", "-m", "hardsoft.annotate", *arguments).output


def test_a_table_holds_the_unlabelled_skills_and_no_label(project: Repository) -> None:
    assert "2 skills to label" in annotate(project, "export", "mine.csv")
    header, *rows = project.read("mine.csv").splitlines()
    assert header == "skill,label,note"
    assert sorted(rows) == ['"<b>Odd</b> & ""Co""",,', "New Craft,,"]


def test_a_page_shows_names_as_text(project: Repository) -> None:
    annotate(project, "export", "mine.html")
    page = project.read("mine.html")
    assert "<b>Odd</b>" not in page
    annotate(project, "export", "mine.csv")
    skills = [row["skill"] for row in csv.DictReader(project.read("mine.csv").splitlines())]
    assert [unescape(name) for name in re.findall("<legend>(.*?)</legend>", page)] == skills
    assert page.count('type="radio"') == 2 * 3
    assert "http" not in page.lower().replace("<!doctype html>", "")


def test_labels_are_added_and_none_is_overwritten(project: Repository) -> None:
    project.write("mine.csv", "skill,label,note\nNew Craft,Hard,learned\nOdd,,\nTACT,Soft,\n")
    assert "1 labels added, 1 skills left unlabelled" in annotate(project, "import", "mine.csv")
    assert (
        project.read("data/reference/labels.csv") == "skill,label,note\nV-Ray,Hard,a tool\nTact,Soft,\nNew Craft,Hard,learned\n"
    )
    project.write("mine.csv", "skill,label,note\nTact,Hard,\nZeal,Soft,\n")
    run = project.run("python", "-m", "hardsoft.annotate", "import", "mine.csv")
    assert run.code == 1
    assert "conflict, not changed: Tact: the reference has Soft, the file Hard" in run.output
    assert "mine.csv: 1 labels differ" in run.output
    assert project.read("data/reference/labels.csv").splitlines()[2:] == ["Tact,Soft,", "New Craft,Hard,learned", "Zeal,Soft,"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("skill,label\nA,Hard\nB,\nC,hard\n", "line 4: skill 'C' has the label 'hard'"),
        ("skill,label\nA,Hard\nB,\na,Soft\n", "skill 'A' has two labels, Hard (line 2) and Soft (line 4)"),
        ("name,label\nA,Hard\n", "no column 'skill'"),
    ],
)
def test_labels_that_cannot_be_meant_change_nothing(project: Repository, content: str, message: str) -> None:
    before = project.read("data/reference/labels.csv")
    project.write("mine.csv", content)
    run = project.run("python", "-m", "hardsoft.annotate", "import", "mine.csv")
    assert (run.code, run.output.count("\n")) == (1, 1)
    assert message in run.output
    assert project.read("data/reference/labels.csv") == before


def test_a_person_labels_in_a_browser(project: Repository, browser: Browser) -> None:
    annotate(project, "export", "mine.html")
    requests: list[str] = []
    page = browser.new_page()
    page.on("request", lambda request: requests.append(request.url))
    page.goto((project.path / "mine.html").as_uri())
    odd = page.locator("fieldset").filter(has_text='<b>Odd</b> & "Co"')
    odd.get_by_text("Soft").click()
    odd.get_by_label("note").fill('a "quoted", note')
    assert page.locator("#count").inner_text() == "1 of 2"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    download.value.save_as(project.path / "labels.csv")
    assert {url.partition(":")[0] for url in requests} <= {"file", "blob"}, "nothing leaves the page"
    assert "1 labels added, 1 skills left unlabelled" in annotate(project, "import", "labels.csv")
    reference = csv.DictReader(project.read("data/reference/labels.csv").splitlines())
    assert {row["skill"]: (row["label"], row["note"]) for row in reference}['<b>Odd</b> & "Co"'] == ("Soft", 'a "quoted", note')
    page.close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "mine.csv",
            "skill,label,note\nNew Craft,Hard,\nOdd,,\n",
            "mine.csv is there already (with 1 label); import it, or name",
        ),
        ("mine.csv", "label,skill,note\r\nHard,New Craft,\r\nSoft,Odd,\r\n", "is there already (with 2 labels); import it"),
        ("mine.csv", "skill,label,note\nNew Craft,,a thought\n", "mine.csv is there already; name another file"),
        ("mine.csv", "skill;label;note\nNew Craft;Hard;\n", "mine.csv is there already; name another file"),
        ("mine.html", "<p>a page of mine</p>", "mine.html is there already; name another file"),
        ("mine.txt", "a text of mine", "mine.txt is there already; name another file"),
    ],
)
def test_no_export_overwrites_work(project: Repository, name: str, content: str, message: str) -> None:
    project.write(name, content)
    run = project.run("python", "-m", "hardsoft.annotate", "export", name)
    assert (run.code, run.output.count("\n")) == (1, 1)
    assert message in run.output
    assert (project.path / name).read_bytes().decode() == content


def test_an_export_without_labels_is_written_anew(project: Repository) -> None:
    for name in ("mine.csv", "mine.html"):
        annotate(project, "export", name)
        project.write("data/reference/labels.csv", "skill,label,note\n")
        assert "3 skills to label" in annotate(project, "export", name)
        project.write("data/reference/labels.csv", "skill,label,note\nV-Ray,Hard,a tool\n")


@pytest.mark.parametrize(
    ("reference", "result"),
    [
        ("skill,label\nV-Ray,Hard\n", 'skill,label\nV-Ray,Hard\n"A, B",Soft\nWelding,Hard\n'),
        ("label,skill,note\nHard,V-Ray,", 'label,skill,note\nHard,V-Ray,\nSoft,"A, B",why\nHard,Welding,\n'),
        ("\ufeffid,skill,label\r\n1,V-Ray,Hard\r\n", '\ufeffid,skill,label\r\n1,V-Ray,Hard\r\n,"A, B",Soft\r\n,Welding,Hard\r\n'),
        ("note,label,skill", 'note,label,skill\nwhy,Soft,"A, B"\n,Hard,Welding\n'),
    ],
)
def test_labels_enter_the_columns_and_line_ends_that_are_there(project: Repository, reference: str, result: str) -> None:
    path = project.path / "data/reference/labels.csv"
    path.write_bytes(reference.encode())
    project.write("new.csv", 'skill,label,note\nWelding,Hard,\n"A, B",Soft,why\n')
    assert "2 labels added" in annotate(project, "import", "new.csv")
    assert path.read_bytes().decode() == result
    assert "0 labels added" in annotate(project, "import", "new.csv")


def test_a_reference_without_a_label_column_is_left_alone(project: Repository) -> None:
    project.write("data/reference/labels.csv", "skill,kind\nV-Ray,Hard\n")
    project.write("new.csv", "skill,label,note\nWelding,Hard,\n")
    run = project.run("python", "-m", "hardsoft.annotate", "import", "new.csv")
    assert (run.code, run.output.count("\n")) == (1, 1)
    assert "data/reference/labels.csv: no column 'label'" in run.output
    assert project.read("data/reference/labels.csv") == "skill,kind\nV-Ray,Hard\n"


def test_a_terminal_that_takes_ascii_only_shows_names_too(project: Repository) -> None:
    project.write("data/reference/labels.csv", "skill,label,note\nCafé work,Hard,\n")
    project.write("cafe.csv", "skill,label,note\nCafé work,Soft,\n")
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        run = project.run("python", "-m", "hardsoft.annotate", "import", "cafe.csv", environment=environment)
        assert run.code == 1
        assert "conflict, not changed: Caf\\xe9 work: the reference has Hard, the file Soft" in run.output
        assert run.output.endswith(
            "annotate: cafe.csv: 1 labels differ from data/reference/labels.csv; change one side of each by hand\n"
        )
