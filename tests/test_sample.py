"""What is drawn for the judge."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.stages.sample import draw

LABELS = pl.DataFrame({"skill": [f"skill {n}" for n in range(200)], "label": ["Hard"] * 150 + ["Soft"] * 30 + ["Unknown"] * 20})


def test_so_many_of_each_label_and_their_weights() -> None:
    sample = draw(LABELS, per_label=25, seed=42)
    assert Counter(sample["label"]) == {"Hard": 25, "Soft": 25}
    assert set(sample.filter(pl.col("label") == "Hard")["weight"]) == {6.0}
    assert sample["weight"].sum() == pytest.approx(180)
    assert sample.equals(sample.sort("label", "skill"))


def test_all_are_taken_where_there_are_fewer() -> None:
    sample = draw(LABELS, per_label=50, seed=42)
    assert Counter(sample["label"]) == {"Hard": 50, "Soft": 30}
    assert set(sample.filter(pl.col("label") == "Soft")["weight"]) == {1.0}


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed: int, chance) -> None:  # type: ignore[no-untyped-def]
    rows = LABELS.rows()
    chance.shuffle(rows)
    shuffled = pl.DataFrame(rows, schema=LABELS.schema, orient="row")
    assert draw(LABELS, 10, seed).equals(draw(shuffled, 10, seed))


def test_every_skill_is_about_equally_likely() -> None:
    drawn = Counter(skill for seed in range(400) for skill in draw(LABELS, 15, seed)["skill"])
    soft = [drawn[f"skill {n}"] for n in range(150, 180)]
    assert min(soft) > 140  # 200 expected, standard deviation 10
    assert max(soft) < 260


def test_no_label_to_sample_gives_an_empty_table() -> None:
    assert draw(LABELS.filter(pl.col("label") == "Unknown"), 5, 1).is_empty()
