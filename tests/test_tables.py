"""CSV files without a quote are read at once, and just as the row by row way reads them."""

import csv
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.core import tables
from hardsoft.core.errors import InputError

LINES = st.lists(st.text(st.sampled_from("ab;; é\t,\u2028\x85\x0b\x1c0NULL"), max_size=8), min_size=1, max_size=6)


def read(path: Path) -> pl.DataFrame | str:
    try:
        return tables.read_csv(str(path), ";", ("NULL",))
    except InputError as error:
        return str(error)


@given(LINES, st.sampled_from(["", "\n", "\n\n"]))
def test_both_ways_of_reading_agree(tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str) -> None:
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(lines) + end, encoding="utf-8", newline="")
    quick = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_plain_table", lambda *_: None)
        thorough = read(path)
    if isinstance(quick, str) or isinstance(thorough, str):
        assert isinstance(quick, str)
        assert quick == thorough
    else:
        assert quick.equals(thorough)


@pytest.mark.parametrize(
    "text", ['a;b\n"1";2\n', "a;b\r\n1;2\r\n", "a;b\n1;2\\\n", "sep=;\na;b\n1;2\n", "a;a\n1;2\n", "a;b\n1\n"]
)
def test_what_is_no_plain_table_is_left_to_the_other_way(text: str) -> None:
    assert tables._plain_table(text, ";", ("",)) is None


def test_a_plain_table_is_read_at_once() -> None:
    table = tables._plain_table("a;b\n1;\nNULL;é\n", ";", ("", "NULL"))
    assert table is not None
    assert table.rows() == [("1", None), (None, "é")]


HEADER = "CANDIDATE_ID;Skill;Skill_Type"
PROSE = [
    f'{HEADER};Comment\n1;V-Ray;P;"rendering; used daily\nalso: Corona; Lumion; Octane"\n2;Tact;P;\n',
    f'{HEADER};Comment\n1;V-Ray;Professional_Skill;"used daily\nalso: Corona; Lumion; Enscape"\n',
    'Comment;CANDIDATE_ID;Skill\n"a; b; c\nd";1;V-Ray\n"e; f; g\r\nh";2;Tact\n',
    'job_id;title;description;code\n1;Nurse;"A nurse; in Bern.\nBring patience; care; time.";HCPR\n2;Welder;"MIG; TIG";MN\n',
    'Skill;Comment\nV-Ray;"used daily\nrendering; mostly"\nTact;\n',
    'id;values;code\n1;"3;4\n5;6";AB\n2;"7;8\n9;9";CD\n',
    'title;town;text\nNurse;Bern;"We need you.\n\nPatience; care; time\nCall; write; come; ask"\nWelder;Oslo;\n',
]


@pytest.mark.parametrize("text", PROSE)
def test_text_with_line_breaks_and_separators_in_quotes_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter=";")
    table = tables.read_csv(str(path), ";")
    assert (table.columns, [[cell or "" for cell in row] for row in table.rows()]) == (header, rows)


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("column", range(3))
def test_swallowed_rows_are_never_lost(tmp_path: Path, first: int, count: int, column: int) -> None:
    skills = ["Machine Learning", "Tact", "3D", "C++", "Pâtisserie", "Team, Spirit", "360", "ab"]
    rows = [[str(n + 1), skill, "IT_Skill" if n % 3 == 2 else "Professional_Skill"] for n, skill in enumerate(skills)]
    last = min(first + count, len(rows)) - 1
    rows[first][column] = f'"{rows[first][column]}'
    rows[last][column] += '"'
    path = tmp_path / "table.csv"
    path.write_text("\n".join([HEADER, *map(";".join, rows), ""]), encoding="utf-8")
    with pytest.raises(InputError, match=f"line {first + 2} begins a quoted field with whole rows in it"):
        tables.read_csv(str(path), ";")


OTHERS = {
    "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n": "a Git LFS pointer, not the file itself; run `git",
    '<!DOCTYPE html>\n<html lang="en"><head><title>Sign in</title></head>\n<body>Sign in; then</body></html>\n': "a web page",
    '\ufeff\n<?xml version="1.0"?>\n<!-- made; by hand -->\n<html xmlns="x">': "a web page",
    "<HTML><body>é</body>": "a web page",
    '<?xml version="1.0"?>\n<skills><skill id="1"/></skills>\n': "XML",
    "<skills>\n<skill/></skills>": "XML",
    '[{"CANDIDATE_ID": 1, "Skill": "V-Ray", "Skill_Type": "P"}]\n': "JSON",
    '{"CANDIDATE_ID": 1; "Skill": "V-Ray"}\n{"CANDIDATE_ID": 2}\n': "JSON",
    '[\n  ["a", 1],\n  ["b", 2]\n]\n': "JSON",
    "[]": "JSON",
    "outs:\n- md5: 1f\n  size: 3\n  hash: md5\n  path: cv_skills.csv\n": "a .dvc file's text",
    "md5: 2a\nfrozen: true\ndeps:\n- path: a\nouts:\n- path: b\n": "a .dvc file's text",
}


@pytest.mark.parametrize(("text", "kind"), OTHERS.items())
def test_what_is_no_table_is_called_what_it_is(tmp_path: Path, text: str, kind: str) -> None:
    path = tmp_path / "table.csv"
    for encoding in ("utf-8", "latin-1"):
        path.write_text(text, encoding=encoding, errors="ignore")
        with pytest.raises(InputError) as error:
            tables.read_csv(str(path), ";")
        assert f"{path}: {kind}" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["[Id];[Skill]", "<id>;<skill>", "{id};{skill}", "outs;deps", "version;html"])
def test_an_odd_header_is_no_other_kind_of_file(tmp_path: Path, header: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n1;Tact\n", encoding="utf-8")
    assert tables.read_csv(str(path), ";").columns == header.split(";")
