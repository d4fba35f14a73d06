"""What extract makes of an export, clean or not."""

import unicodedata

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.config.schema import Columns, DataConfig
from hardsoft.stages.extract import distinct_skills

DATA = DataConfig(
    path="data/raw/cv_skills.csv",
    separator=";",
    columns=Columns(candidate="CANDIDATE_ID", skill="Skill", type="Skill_Type"),
    skill_type="Professional_Skill",
    null_values=["NULL", "N/A"],
    reference="data/reference/labels.csv",
)
Row = tuple[str | None, str | None, str | None]


def extract(rows: list[Row]) -> dict[str, int]:
    table = pl.DataFrame(rows, schema=dict.fromkeys(("CANDIDATE_ID", "Skill", "Skill_Type"), pl.String), orient="row")
    return dict(distinct_skills(table, DATA).rows())


def test_only_the_wanted_type_is_taken() -> None:
    assert extract([("1", "V-Ray", "Professional_Skill"), ("1", "Excel", "IT_Skill"), ("1", "B", None)]) == {"V-Ray": 1}


def test_a_candidate_counts_once_and_spellings_that_differ_in_case_or_blanks_are_one_skill() -> None:
    rows: list[Row] = [("1", "Bid Writing", "Professional_Skill"), ("1", " bid  writing\t", "Professional_Skill")]
    rows += [("2", "Bid Writing", " Professional_Skill "), ("3", "Bid\u00a0Writing", "Professional_Skill")]
    assert extract(rows) == {"Bid Writing": 3}


def test_the_most_frequent_spelling_is_shown_and_of_equals_the_first() -> None:
    rows: list[Row] = [(str(n), name, "Professional_Skill") for n, name in enumerate(["seo", "SEO", "SEO", "Api", "API"])]
    assert extract(rows) == {"SEO": 3, "API": 2}


def test_nulls_are_dropped() -> None:
    rows: list[Row] = [("1", value, "Professional_Skill") for value in (None, "", "  ", " NULL ", "N/A", "\u200b", "Nil")]
    assert extract(rows) == {"Nil": 1}


def test_composed_and_decomposed_letters_are_one_skill() -> None:
    rows: list[Row] = [
        ("1", "Pâtisserie", "Professional_Skill"),
        ("2", unicodedata.normalize("NFD", "Pâtisserie"), "Professional_Skill"),
    ]
    assert extract(rows) == {"Pâtisserie": 2}


rows_strategy = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", None]),
        st.none() | st.text(max_size=12),
        st.sampled_from(["Professional_Skill", "IT_Skill"]),
    ),
    max_size=30,
)


@given(rows_strategy, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_and_repeating_them_changes_nothing(rows: list[Row], chance) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert extract(rows) == extract(shuffled) == extract(rows * 2)


@given(rows_strategy)
def test_skills_are_distinct_sorted_and_clean(rows: list[Row]) -> None:
    skills = list(extract(rows))
    assert skills == sorted(skills)
    assert len({skill.lower() for skill in skills}) == len(skills)
    assert all(skill == " ".join(skill.split()) != "" for skill in skills)
