"""What extract makes of an export, clean or not."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.config.schema import Columns, DataConfig
from hardsoft.core.names import clean, key
from hardsoft.stages.extract import distinct_skills, skill_mentions

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
    return dict(distinct_skills(skill_mentions(table, DATA)).rows())


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


SAME = {
    "Project Management": [
        *["Project\u00ad Management", "Project\u2060  Management", "\u200eProject Management\u200e", "Project\u200d Management"],
        *["\u202aProject Management\u202c", "Pro\u200bject Management", "Project\u3000Management", "PROJECT MANAGEMENT"],
        *[
            "Ｐｒｏｊｅｃｔ Management",
            "• Project Management",
            "- Project Management",
            "Project Management.",
            "Project&nbsp;Management",
        ],
        *[
            "Project%20Management",
            '"Project Management"',
            "\ufeffProject\tManagement",
            "Project Management\ufe0f",
            "Project\u2028Management",
        ],
    ],
    "R&D Management": ["R&amp;D Management", "R&amp;amp;D Management", "R&#38;D Management", "R%26D Management"],
    "Straßenbau": ["STRASSENBAU", "strassenbau", "Stra&szlig;enbau"],
    "Pâtisserie": [unicodedata.normalize("NFD", "Pâtisserie"), "PÃ¢tisserie", "P&acirc;tisserie"],
    "Driver's Licence": ["Driver’s Licence", "Driver&#39;s Licence", "Driver&rsquo;s Licence"],
    "Problem-Solving": ["Problem‐Solving", "Problem‑Solving", "Problem–Solving"],
    "Driver's licence": ["Driver´s licence"],
    '19" rack': ["19″ rack", "19&quot; rack"],
    "Java": [
        '"Java".',
        "„Java“.",
        "'Java',",
        "Ja\x00va",
        "\uf0b7 Java",
        "•Java",
        "❖ Java",
        "Ja\U000e0100va",
        "Java\u2800",
        "%4Aava",
    ],
    "Management": ["Manage\u00ad\nment"],
    "İletişim": ["iletişim", "İLETİŞİM"],
    "Office": ["Oﬃce", "OFFICE"],
}


@pytest.mark.parametrize("name", SAME)
def test_one_skill_stays_one_skill_in_whatever_form_it_comes(name: str) -> None:
    forms = [name, name, *SAME[name]]
    assert extract([(str(number), form, "Professional_Skill") for number, form in enumerate(forms)]) == {name: len(forms)}


@pytest.mark.parametrize(
    "names", [("C", "C++", "C#"), (".NET", "NET"), ("Q&A", "QA"), ("50% Rule", "50 Rule"), ("Node.js", "Node js")]
)
def test_what_differs_stays_apart(names: tuple[str, ...]) -> None:
    assert extract([("1", name, "Professional_Skill") for name in names]) == dict.fromkeys(sorted(names), 1)


@given(st.text(max_size=30))
def test_a_clean_name_and_a_key_are_clean_already(name: str) -> None:
    assert clean(clean(name)) == clean(name)
    assert key(clean(name)) == key(name)


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
