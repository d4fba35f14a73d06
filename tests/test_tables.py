"""CSV files without a quote are read at once, and just as the row by row way reads them."""

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
