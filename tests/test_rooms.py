"""The rooms of src/hardsoft: who may import whom, and that a stage depends on whatever it imports or reads."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hardsoft.core import paths
from tests.support.repositories import ROOT

PACKAGE = ROOT / "src/hardsoft"
TABLES = PACKAGE / "stages/tables.py"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MAY_IMPORT = {
    "core": set[str](),
    "config": {"core"},
    "statistics": {"core"},
    "servers": {"core"},
    "prompting": {"core", "config"},
    "store": {"core", "config"},
    "engines": {"core", "config", "servers", "prompting", "store"},
    "judging": {"core", "config", "servers", "prompting", "store"},
    "stages": {"core", "config", "statistics", "servers", "prompting", "store", "engines", "judging"},
}
"""Of the other rooms, those that a room's files may import."""
TOOLS = {"annotate.py", "compare.py", "readout.py", "sweep"}
"""Files and packages beside the rooms, for people to run; they may import whatever they need, and nothing imports them."""
MACHINE = "src/hardsoft/config/machine.py"
"""Of the configuration the one file that decides what is computed."""
FILE = re.compile(r"(\.dvc|data|docs|metrics|models)/\S*")
"""A string that is the path of a file in the repository, or the beginning of one."""


def imports_of(file: Path, root: Path = ROOT / "src") -> set[Path]:
    """The project's own files that a file names in its import statements, wherever in it they stand."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(root).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        place = root.joinpath(*name.split("."))
        files |= {one for one in (place.with_suffix(".py"), place / "__init__.py") if name and one.is_file()}
    return files


def needs_no_dependency(file: str) -> bool:
    """Whether a stage need not depend on a file: configuration, whose values are params, or one that holds a docstring only."""
    return file.startswith("src/hardsoft/config/") or file.endswith("__init__.py")


def imported_by(file: Path) -> set[Path]:
    """The project's own files that a file imports, directly or not, with itself."""
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += imports_of(one)
    return seen


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import package.a.x", {"package/a/x.py"}),
        ("import package.a.x as y", {"package/a/x.py"}),
        ("from package.a import x", {"package/a/x.py", "package/a/__init__.py"}),
        ("from package.a.x import name", {"package/a/x.py"}),
        ("from . import x", {"package/a/x.py", "package/a/__init__.py"}),
        ("from .x import name", {"package/a/x.py"}),
        ("from ..b import z", {"package/b/z.py"}),
        ("def f():\n    if 1:\n        import package.b.z", {"package/b/z.py"}),
        ("import os, json", set()),
    ],
)
def test_every_form_of_import_is_found(tmp_path: Path, statement: str, found: set[str]) -> None:
    for name in ("package/a/x.py", "package/a/__init__.py", "package/b/z.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    file = tmp_path / "package/a/here.py"
    file.write_text(statement, encoding="utf-8")
    assert {one.relative_to(tmp_path).as_posix() for one in imports_of(file, tmp_path)} == found


def test_no_room_imports_one_above_it() -> None:
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        if room in TOOLS:
            continue
        for imported in imports_of(file) - {PACKAGE / "__init__.py"}:
            other = imported.relative_to(PACKAGE).parts[0]
            assert other == room or other in MAY_IMPORT[room], f"{file} imports {imported}"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not even by way of others, in whatever function the import stands."""
    for file in PACKAGE.rglob("*.py"):
        reached = {one for imported in imports_of(file) for one in imported_by(imported)}
        assert file not in reached, f"{file} imports itself by way of others"


def test_every_file_lies_in_a_room_and_packages_hold_a_docstring_only() -> None:
    files = {file.name for file in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert files | {file.parent.name for file in PACKAGE.glob("*/__init__.py")} == TOOLS | set(MAY_IMPORT)
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), file
        assert file.name != "__init__.py" or len(tree.body) == 1, file


def test_the_readmes_map_is_the_tree() -> None:
    """Its rooms in an order in which each imports only rooms above it."""
    _, _, table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| room | what |\n|---|---|\n")
    rooms = [line.split("`")[1].rstrip("/") for line in table.partition("\n\n")[0].splitlines()]
    assert set(rooms) == set(MAY_IMPORT)
    assert all(MAY_IMPORT[room] <= set(rooms[:place]) for place, room in enumerate(rooms))
    files = {name for line in table.partition("\n\n")[0].splitlines() for name in line.split("`")[3::2] if name.endswith(".py")}
    assert files <= {file.name for file in PACKAGE.rglob("*.py")}


def test_nothing_imports_a_stage() -> None:
    """Nor a tool, but for the files of the tool itself; `stages/tables.py` is no stage, and stages and tools import it."""
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        others = {other.relative_to(PACKAGE) for other in imports_of(file) - {TABLES} if other.is_relative_to(PACKAGE)}
        forbidden = {other for other in others if other.parts[0] in TOOLS and other.parts[0] != room}
        forbidden |= {other for other in others if other.match("stages/[a-z]*.py")}
        assert not forbidden, f"{file} imports {forbidden}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_whatever_it_imports(stage: str) -> None:
    """So that a change of it, there or in what that imports, runs the stage again."""
    imported = {one.relative_to(ROOT).as_posix() for one in imported_by(PACKAGE / f"stages/{stage}.py")}
    needed = {one for one in imported if one == MACHINE or not needs_no_dependency(one)}
    covered = {one for one in needed for dep in STAGES[stage]["deps"] if one == dep or one.startswith(f"{dep}/")}
    assert needed == covered


def named_in(tree: ast.AST, readers: dict[str, set[str]]) -> set[str]:
    """The files that code names: in strings, by constants of core/paths.py, or by readers of stages/tables.py."""
    files = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and FILE.fullmatch(node.value):
            files.add(node.value)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            place, names = node.value.id, {node.attr}
        elif isinstance(node, ast.ImportFrom):
            place, names = (node.module or "").rpartition(".")[2], {alias.name for alias in node.names}
        else:
            continue
        if place == "paths":
            files |= {getattr(paths, name) for name in names}
        elif place == "tables":
            files |= {file for name in names for file in readers.get(name, ())}
    return files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_the_files_that_it_names(stage: str) -> None:
    functions = [node for node in ast.parse(TABLES.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    readers = {function.name: named_in(function, {}) for function in functions}
    entries = [entry for kind in ("deps", "outs", "metrics", "plots") for entry in STAGES[stage].get(kind, [])]
    declared = {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}
    named = named_in(ast.parse((PACKAGE / f"stages/{stage}.py").read_text(encoding="utf-8")), readers)
    assert named
    assert not {file for file in named if not any(file == path or file.startswith(f"{path}/") for path in declared)}


@pytest.mark.parametrize("option", sorted((ROOT / "conf/prompt").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_documents_of_a_prompt_are_dependencies(option: Path) -> None:
    prompt = yaml.safe_load(option.read_text(encoding="utf-8"))
    assert {"${prompt.dep}", "${prompt.template}"} <= set(STAGES["classify"]["deps"])
    assert "docs/codebook.md" in STAGES["judge"]["deps"]
    uses_codebook = "codebook" in (ROOT / prompt["template"]).read_text(encoding="utf-8")
    assert prompt["dep"] == ("docs/codebook.md" if uses_codebook else f"conf/prompt/{option.name}")
