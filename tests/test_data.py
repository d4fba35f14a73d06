"""What the README promises of the shipped data."""

import csv
from collections import Counter

import polars as pl

from hardsoft.core.names import name_key
from hardsoft.readout import head_word
from tests.support.repositories import ROOT


def reference() -> list[dict[str, str]]:
    with open(ROOT / "data/reference/labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_export_is_like_a_real_one() -> None:
    rows = pl.read_csv(ROOT / "data/raw/cv_skills.csv", separator=";", infer_schema=False)
    assert rows.columns == ["CANDIDATE_ID", "Skill", "Skill_Type"]
    assert set(rows["Skill_Type"]) == {"Professional_Skill", "IT_Skill", "Job_title", "Language_Skill", "DRIVERSLIC"}
    assert rows.height >= 6_000
    assert rows["CANDIDATE_ID"].n_unique() >= 400
    skills = rows.filter(pl.col("Skill_Type") == "Professional_Skill")["Skill"]
    assert skills.null_count() > 0
    assert (skills != skills.str.strip_chars()).sum() > 0
    assert skills.drop_nulls().str.contains(r"[^\x00-\x7F]").sum() > 0
    assert skills.n_unique() > skills.str.to_lowercase().n_unique()


def test_every_professional_skill_has_one_label() -> None:
    rows = pl.read_csv(ROOT / "data/raw/cv_skills.csv", separator=";", infer_schema=False, null_values=["NULL", "N/A", "-"])
    skills = rows.filter(pl.col("Skill_Type") == "Professional_Skill").select(key=name_key(pl.col("Skill"))).drop_nulls().unique()
    labelled = pl.read_csv(ROOT / "data/reference/labels.csv", infer_schema=False).select(key=name_key(pl.col("skill")))
    assert skills.height >= 800
    assert labelled["key"].is_duplicated().sum() == 0
    assert skills.join(labelled, on="key", how="anti").is_empty()


def test_the_mix_of_labels_and_the_variety_of_names() -> None:
    counts = Counter(row["label"] for row in reference())
    assert 4 <= counts["Hard"] / counts["Soft"] <= 6
    assert counts["Unknown"] >= 30
    words = [row["skill"].lower().split() for row in reference()]
    last, first = Counter(name[-1] for name in words), Counter(name[0] for name in words)
    assert len(last) >= 500
    assert max(last.values()) <= 0.02 * len(words)
    assert max(first.values()) <= 0.02 * len(words)


def test_no_name_of_the_lexicon_is_evaluated_and_none_is_there_twice() -> None:
    lexicon = pl.read_csv(ROOT / "models/lexicon/lexicon.csv", infer_schema=False).select(key=name_key(pl.col("skill")))
    labelled = pl.read_csv(ROOT / "data/reference/labels.csv", infer_schema=False).select(key=name_key(pl.col("skill")))
    assert lexicon["key"].is_duplicated().sum() == 0
    assert lexicon.join(labelled, on="key").is_empty()


def test_as_many_evaluated_skills_end_in_a_word_of_the_lexicon_as_the_card_says() -> None:
    with open(ROOT / "models/lexicon/lexicon.csv", encoding="utf-8", newline="") as file:
        heads = {head_word(row["skill"]) for row in csv.DictReader(file)}
    overlap = sum(head_word(row["skill"]) in heads for row in reference())
    card = (ROOT / "models/smollm2/README.md").read_text(encoding="utf-8")
    assert f"{overlap} of the {len(reference())} evaluated skills end in a word in which some name of the lexicon ends" in card
