"""What is drawn for the judge."""

from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.config.samples import AllSampleConfig, FrozenSampleConfig, PerLabelSampleConfig
from hardsoft.stages.sample import draw, sizes
from hardsoft.statistics.sampling import by_mention, inclusion, neyman, per_label

SIZES = {"Hard": 25, "Soft": 25}
LABELS = pl.DataFrame({"skill": [f"skill {n}" for n in range(200)], "label": ["Hard"] * 150 + ["Soft"] * 30 + ["Unknown"] * 20})


def test_so_many_of_each_label_and_their_weights() -> None:
    sample = per_label(LABELS, SIZES, seed=42)
    assert Counter(sample["label"]) == {"Hard": 25, "Soft": 25}
    assert set(sample.filter(pl.col("label") == "Hard")["weight"]) == {6.0}
    assert sample["weight"].sum() == pytest.approx(180)
    assert sample.equals(sample.sort("label", "skill"))


def test_all_are_taken_where_there_are_fewer() -> None:
    sample = per_label(LABELS, {"Hard": 50, "Soft": 50}, seed=42)
    assert Counter(sample["label"]) == {"Hard": 50, "Soft": 30}
    assert set(sample.filter(pl.col("label") == "Soft")["weight"]) == {1.0}


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed: int, chance) -> None:  # type: ignore[no-untyped-def]
    rows = LABELS.rows()
    chance.shuffle(rows)
    shuffled = pl.DataFrame(rows, schema=LABELS.schema, orient="row")
    assert per_label(LABELS, SIZES, seed).equals(per_label(shuffled, SIZES, seed))


def test_every_skill_is_about_equally_likely() -> None:
    drawn = Counter(skill for seed in range(400) for skill in per_label(LABELS, {"Hard": 15, "Soft": 15}, seed)["skill"])
    soft = [drawn[f"skill {n}"] for n in range(150, 180)]
    assert min(soft) > 140  # 200 expected, standard deviation 10
    assert max(soft) < 260


def test_no_label_to_sample_gives_an_empty_table() -> None:
    assert per_label(LABELS.filter(pl.col("label") == "Unknown"), SIZES, 1).is_empty()


def frozen(**options: object) -> FrozenSampleConfig:
    usual = {"kind": "frozen", "fraction": 0.2, "fractions": {}, "seed": 42, "dep": "data/reference/none.csv"}
    return FrozenSampleConfig.model_validate({**usual, **options})


MANY = pl.DataFrame(
    {"skill": [f"skill {n}" for n in range(5000)], "label": ["Hard"] * 3000 + ["Soft"] * 1500 + ["Unknown"] * 500, "mentions": 1}
)


def test_a_frozen_sample_does_not_depend_on_labels_or_on_other_skills() -> None:
    sample = draw(MANY, frozen())
    assert 900 < sample.height < 1100
    assert set(sample["weight"]) == {5.0}
    relabelled = draw(MANY.with_columns(label=pl.lit("Soft")), frozen())
    assert set(relabelled["skill"]) == set(sample["skill"])
    more = pl.concat([MANY, MANY.select(skill=pl.col("skill") + " more", label="label", mentions="mentions")])
    grown = draw(more, frozen())
    assert set(sample["skill"]) == {skill for skill in grown["skill"] if not skill.endswith("more")}


def test_a_frozen_sample_by_a_baselines_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    MANY.head(4800).write_csv("before.csv")
    option = frozen(baseline="before.csv", dep="before.csv", fraction=1.0, fractions={"Hard": 0.1, "Soft": 0.5, "Unknown": 0.5})
    sample = draw(MANY.with_columns(label=pl.lit("Hard")), option).join(MANY.select("skill", before="label"), on="skill")
    assert set(sample.filter(pl.col("before") == "Hard")["weight"]) == {10.0}
    assert set(sample.filter(pl.col("before") == "Soft")["weight"]) == {2.0}
    assert sample.filter(pl.col("weight") == 1.0).height == 200, "skills that the baseline lacks"
    assert sample["weight"].sum() == pytest.approx(5000, rel=0.05)


def test_all_skills_are_a_sample_too() -> None:
    sample = draw(MANY, AllSampleConfig(kind="all", dep="data/processed/labels.csv"))
    assert sample.height == 5000
    assert set(sample["weight"]) == {1.0}


def test_by_mention_is_in_proportion_to_mentions() -> None:
    mentions = [1000, *[1 + n % 20 for n in range(299)]]
    labels = pl.DataFrame({"skill": [f"skill {n}" for n in range(300)], "label": "Hard", "mentions": mentions})
    drawn = [by_mention(labels, 30, seed) for seed in range(300)]
    assert all(sample.height == 30 for sample in drawn)
    assert all("skill 0" in set(sample["skill"]) for sample in drawn), "it is too large to be left to chance"
    counts = Counter(skill for sample in drawn for skill in sample["skill"])
    rare, frequent = (sum(counts[f"skill {n}"] for n in range(1, 300) if mentions[n] == k) for k in (5, 20))
    assert frequent / rare == pytest.approx(4, rel=0.15)
    probability = inclusion(labels["mentions"], 30)
    assert probability.sum() == pytest.approx(30)
    for sample in drawn[:5]:
        weights = dict(sample.select("skill", "weight").iter_rows())
        assert all(weight == pytest.approx(1 / probability[int(skill.split()[1])]) for skill, weight in weights.items())


def test_few_skills_are_all_drawn_by_mention() -> None:
    labels = pl.DataFrame({"skill": ["a", "b"], "label": ["Hard", "Soft"], "mentions": [3, 1]})
    assert by_mention(labels, 5, 1).height == 2
    assert by_mention(labels.clear(), 5, 1).is_empty()


def test_neyman_gives_more_to_what_is_less_certain() -> None:
    assert neyman({"Hard": 2000, "Soft": 2000}, {"Hard": 0.98, "Soft": 0.5}, 100) == {"Hard": 22, "Soft": 78}
    assert neyman({"Hard": 9000, "Soft": 40}, {"Hard": 0.9, "Soft": 0.9}, 100) == {"Hard": 90, "Soft": 10}, "ten are the least"
    assert neyman({"Hard": 500, "Soft": 20}, {"Hard": 1.0, "Soft": 0.5}, 100) == {"Hard": 80, "Soft": 20}
    option = PerLabelSampleConfig(
        kind="per_label", per_label=50, allocation="neyman", expected_precision={"Hard": 0.9, "Soft": 0.5}, seed=1, dep="x"
    )
    assert sum(sizes(MANY, option).values()) == 100
