"""How good a read-out is by how many labels of each kind it was fitted on.

Labels are drawn from the lexicon's names that the adapter was trained on, a class at a time and several times over; each read-out
is chosen by cross-validation as `python -m hardsoft.readout fit` does, and scored on the names that were kept out.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np

from benchmarks.classify import configuration
from hardsoft.core.files import to_json
from hardsoft.core.labels import ABILITIES, Label
from hardsoft.readout import CODES, LEXICON, SEED, features_of, head_words, read_names
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.classifier import Codes, Features, candidates, choose, fit, folds

VALIDATION = "models/smollm2/validation.csv"


def score(features: list[Features], labels: Codes, groups: list[str], drawn: Codes, out: Codes) -> float:
    """Balanced accuracy on names held out of a read-out that was fitted on drawn ones."""
    splits = folds(labels[drawn], [groups[place] for place in drawn], SEED)
    choice = choose(list(candidates([layer[drawn] for layer in features], labels[drawn], splits, len(Label))))
    layer = features[choice.place]
    given = fit(layer[drawn], labels[drawn], choice.strength, choice.balanced, len(Label)).logits(layer[out]).argmax(1)
    every = list(Label)
    figures = agreement([every[one] for one in labels[out]], [every[one] for one in given], ABILITIES, every)
    return float(figures["balanced_accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_curve", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 100, 200], help="labels of each kind")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--pool", type=int, default=1000, help="names of each kind to draw from")
    parser.add_argument("--held-out", type=int, default=2332, help="names to score on, at most")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as model=tiny")
    arguments = parser.parse_args()
    config = configuration("prompt=label_only", *arguments.overrides)

    names, kept_out = read_names(LEXICON, VALIDATION)
    assert kept_out is not None
    generator = np.random.default_rng(SEED)
    pools = {
        label: generator.permutation(names.filter(names["label"] == label)["skill"].to_list())[: arguments.pool].tolist()
        for label in Label
    }
    kept_out = kept_out.sample(min(arguments.held_out, kept_out.height), seed=SEED)
    skills = [*(skill for pool in pools.values() for skill in pool), *kept_out["skill"]]
    labels = np.array(
        [*(CODES[label] for label, pool in pools.items() for _ in pool), *(CODES[one] for one in kept_out["label"])]
    )
    _, features, _ = features_of(config, skills)
    groups, pooled = head_words(skills), len(skills) - kept_out.height
    out = np.arange(pooled, len(skills))

    print(f"{len(out)} names held out; balanced accuracy over {arguments.draws} draws")
    rows = {}
    for size in arguments.sizes:
        found = []
        for _ in range(arguments.draws):
            drawn = [generator.choice(np.flatnonzero(labels[:pooled] == code), size, replace=False) for code in range(len(Label))]
            found.append(score(features, labels, groups, np.concatenate(drawn), out))
        rows[str(size)] = {"mean": round(statistics.mean(found), 4), "low": round(min(found), 4), "high": round(max(found), 4)}
        print(f"{size:>5} of each kind   {rows[str(size)]['mean']:.3f}   ({min(found):.3f} to {max(found):.3f})", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(to_json(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
