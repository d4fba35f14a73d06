"""README.md and docs/ name only what exists: commands, options, targets, links and files."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from dvc.cli.parser import get_main_parser
from dvc.utils.hydra import get_hydra_sweeps

from hardsoft.config.compose import compose
from hardsoft.core.errors import InputError
from hardsoft.sweep.__main__ import planned
from tests.support.repositories import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = 1_300
"""Of the README, at most."""
WIDTH = 120
"""Of a line, in characters; docs/codebook.md, on which stages depend, is wrapped otherwise."""

SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
OVERRIDE = re.compile(r"[~+]?[\w.]+(/\w+)?=.+")
FILE = re.compile(r"[\w.*-]+(/[\w.*-]+)*/?")
ENDINGS = (
    ".py",
    ".md",
    ".csv",
    ".json",
    ".jsonl",
    ".yaml",
    ".yml",
    ".toml",
    ".txt",
    ".log",
    ".html",
    ".lock",
    ".sqlite",
    ".safetensors",
)

EXAMPLES = {
    "data=mine": "data=sample",
    "sample.baseline=path": "sample.baseline=data/reference/none.csv",
    "engine.base_urls=[…]": "engine.base_urls=[http://a:8000/v1]",
    "+experiment=…": "+experiment=study",
}
"""What a reader replaces, by what there is."""
NEEDS = {
    "engine.": ["engine=server"],
    "engine.graphs": [],
    "engine.processes": [],
    "engine.max_error_share": [],
    "engine.identity": ["engine=server"],
    "engine=decisions": ["prompt=label_only"],
    "judge.": ["judge=openai"],
    "sample.baseline": ["sample=frozen"],
}
"""Overrides that the text names alone: what else is chosen where they make sense. The longest beginning counts."""
OF_A_SWEEP = ("hydra", "sweep.")
REFUSED = {"prompt=zero_shoot", "clean.abstain=0.8"}
"""Misspelt in the text, as examples of what is refused."""
OF_THE_READER = {
    "conf/data/mine.yaml",
    "data/raw/mine.csv",
    "mine.csv",
    "models/readouts/mine.json",
    "models/readouts/mine.safetensors",
    ".cache/rows-2.sqlite",
}
"""Files that a reader makes, or a run beside the stages' outputs."""


def fenced(text: str) -> Iterator[tuple[int, str, bool]]:
    """Each line with its number, and whether it stands in a fenced block."""
    block = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            block = not block
        yield number, line, block


def spans(page: Path) -> list[str]:
    """The inline code of a page, each in one line."""
    lines = ("" if block else line.removeprefix("```") for _, line, block in fenced(page.read_text(encoding="utf-8")))
    return [" ".join(span.split()) for span in SPAN.findall("\n".join(lines))]


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page, split into words: the lines of its fenced blocks and its inline code."""
    lines = [line for _, line, block in fenced(page.read_text(encoding="utf-8")) if block and not line.startswith("```")]
    for text in [*lines, *spans(page)]:
        for command in text.split(" && "):
            try:
                words = shlex.split(command, comments=True)
            except ValueError:  # an apostrophe: prose in a block
                continue
            if len(words) > 1 and words[0] in ("dvc", "make", "python"):
                yield words


ALL = sorted({tuple(words) for page in PAGES for words in commands(page)})


def of(*beginning: str) -> list[tuple[str, ...]]:
    return [words for words in ALL if words[: len(beginning)] == beginning]


def filled_in(override: str) -> str:
    return EXAMPLES.get(override, override)


def alone() -> list[str]:
    """The overrides that the text names without a command."""
    named = {span.removeprefix("-S ") for page in PAGES for span in spans(page)}
    return sorted(span for span in named if OVERRIDE.fullmatch(span) and " " not in span and not span.startswith(OF_A_SWEEP))


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_there_are_commands_to_hold() -> None:
    assert min(len(of("dvc", "exp", "run")), len(of("python", "-m")), len(of("make"))) > 3


@pytest.mark.parametrize("words", of("dvc"), ids=" ".join)
def test_dvc_knows_the_command(words: tuple[str, ...]) -> None:
    get_main_parser().parse_args(list(words[1:]))


@pytest.mark.parametrize("words", of("dvc", "exp", "run"), ids=" ".join)
def test_the_options_of_an_experiment_compose(words: tuple[str, ...]) -> None:
    overrides = [filled_in(value) for option, value in pairwise(words) if option == "-S"]
    for experiment in get_hydra_sweeps({"params.yaml": overrides}):
        compose(experiment["params.yaml"])


@pytest.mark.parametrize("override", alone())
def test_an_override_named_alone_composes(override: str) -> None:
    if override in REFUSED:
        with pytest.raises(InputError):
            compose([override])
        return
    beginnings = [beginning for beginning in NEEDS if override.startswith(beginning)]
    compose([*NEEDS[max(beginnings, key=len)], filled_in(override)] if beginnings else [filled_in(override)])


@pytest.mark.parametrize("words", of("python", "-m", "hardsoft.sweep"), ids=" ".join)
def test_what_a_sweep_tries_composes(words: tuple[str, ...]) -> None:
    for overrides in planned(words[3:]):
        compose(overrides)


def known(module: str) -> tuple[set[str], list[str]]:
    """The options of a tool and the choices of its first argument, by the calls of `add_argument` in its file."""
    path = Path(*module.split("."))
    places = [ROOT / root / file for root in ("src", ".") for file in (path.with_suffix(".py"), path / "__main__.py")]
    tree = ast.parse(next(place for place in places if place.is_file()).read_text(encoding="utf-8"))
    options, actions = {"--help"}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            names = [ast.literal_eval(argument) for argument in node.args]
            options |= {name for name in names if name.startswith("-")}
            choices = [ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg == "choices"]
            actions += [choice for choice in choices if names == ["action"]]
    return options, actions[0] if actions else []


@pytest.mark.parametrize("words", of("python", "-m"), ids=" ".join)
def test_a_tool_has_the_option(words: tuple[str, ...]) -> None:
    options, actions = known(words[2])
    assert {word.partition("=")[0] for word in words[3:] if word.startswith("--")} <= options
    assert not actions or len(words) == 3 or words[3] in actions


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_make_has_the_target(words: tuple[str, ...]) -> None:
    targets = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub forms them."""
    headings = [
        line.lstrip("#").strip()
        for _, line, block in fenced(page.read_text(encoding="utf-8"))
        if not block and line.startswith("#")
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"], ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def outputs() -> set[str]:
    """What the stages write, by path and by name."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    entries = [entry for stage in stages for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    paths = {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}
    return paths | {Path(path).name for path in paths}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_in_backticks_exists(page: Path) -> None:
    folders = [ROOT, *(folder for folder in (ROOT / "src/hardsoft").glob("**") if folder.name != "__pycache__")]
    top = {place.name for place in ROOT.iterdir()}
    for span in spans(page):
        looks_like_one = FILE.fullmatch(span) and (
            span.endswith((*ENDINGS, "/")) or (span.partition("/")[0] in top and "/" in span)
        )
        if looks_like_one and span not in outputs() | OF_THE_READER:
            assert any((folder / span).exists() for folder in folders), f"{page.name}: {span}"


def test_the_readme_is_an_introduction() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "codebook.md"], ids=lambda page: page.name)
def test_no_line_is_long(page: Path) -> None:
    lines = fenced(page.read_text(encoding="utf-8"))
    assert [number for number, line, block in lines if not block and len(line) > WIDTH] == []
