"""Measure the merged model on the names kept out of its training, and baselines on the evaluation corpus.

Writes calibration.json, the temperatures that the checkpoint's config gets, and metrics.json. Run by `make smollm2-adapter`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import PreTrainedModel

from hardsoft.config.compose import configuration
from hardsoft.config.schema import QuantizationConfig
from hardsoft.core.chat import Completion
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.labels import ABILITIES, Label
from hardsoft.core.paths import NO_READOUT
from hardsoft.core.progress import Progress
from hardsoft.core.runner import run
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.loading import load
from hardsoft.engines.local.packing import pack_linears
from hardsoft.engines.local.score import score
from hardsoft.engines.local.tokens import Encoder
from hardsoft.engines.local.wording import Hints
from hardsoft.judging.reference import read_reference
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.prompts import read_prompt
from hardsoft.readout import CODES, calibration_error, features_of, head_words, read_names
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.classifier import candidates, choose, fit, fit_temperature
from hardsoft.statistics.intervals import wilson
from hardsoft.statistics.stratified import Stratum, post_stratified
from models.smollm2.split import LEXICON, VALIDATION, read_entries
from models.smollm2.targets import KINDS, LEAD, OPENINGS, opening_ids, read_families

FOLDER = Path("models/smollm2")
REFERENCE = "data/reference/labels.csv"
BATCH = 64
LEVEL = 0.95
LABELS = list(Label)
Figures = dict[str, Any]


def label_figures(truth: Sequence[str], given: Sequence[str]) -> Figures:
    """Agreement with true labels, accuracy and balanced accuracy with their intervals."""
    figures = agreement(truth, given, ABILITIES, LABELS)
    right = [one == other for one, other in zip(truth, given, strict=True)]
    strata = [
        Stratum(sum(hit for hit, one in zip(right, truth, strict=True) if one == label), truth.count(label), size=10**6)
        for label in ABILITIES
    ]
    balanced, accuracy = post_stratified(strata, LEVEL), wilson(sum(right), len(right), LEVEL)
    return {
        "n": len(truth),
        "accuracy": interval(accuracy.value, accuracy.low, accuracy.high),
        "balanced_accuracy": interval(balanced.value, balanced.low, balanced.high),
        "unknown_recall": rounded(figures["unknown"]["recall"]),
        "soft_precision": rounded(figures["soft"]["precision"]),
    }


def interval(value: float, low: float, high: float) -> Figures:
    return {"value": rounded(value), "low": rounded(low), "high": rounded(high)}


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def scored(network: PreTrainedModel, prompts: list[list[int]], tokens: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log-probabilities of candidate next tokens after each prompt."""
    result = np.empty((len(prompts), len(tokens)))
    with Progress("scores", len(prompts), "names") as progress:
        for some in score(network, enumerate(prompts), tokens, BATCH):
            for row, probabilities in some:
                result[row] = np.log(np.maximum(probabilities, 1e-30))
            progress.advance(len(some))
    return result


def generated(engine: LocalEngine, chats: list[Any]) -> list[Completion]:
    """The completions of chats, in their order."""
    results: dict[int, Completion] = {}
    with Progress("completions", len(chats), "names") as progress:

        def keep(some: list[tuple[int, Completion]]) -> None:
            results.update(some)
            progress.advance(len(some))

        engine.complete(chats, keep)
    return [results[row] for row in range(len(chats))]


def named_kind_and_family(text: str) -> tuple[Label | None, str]:
    """The label whose kind Step 1 names, and the family's phrase behind it."""
    first = text.partition("\n")[0].partition(LEAD)[2]
    for label, kind in KINDS.items():
        if first.startswith(kind):
            return label, first[len(kind) :].removeprefix(":").strip().rstrip(".")
    return None, ""


def held_out_figures() -> tuple[Figures, Figures]:
    """On names kept out: temperatures, and what the model gets right."""
    entries = read_entries(VALIDATION)
    skills, truth = [entry["skill"] for entry in entries], [entry["label"] for entry in entries]
    codes, groups = np.array([CODES[label] for label in truth]), head_words(skills)
    config = configuration("model=smollm2", "prompt=cot")
    network, tokenizer = load(config.model, QuantizationConfig(method="none", double_quant=False, dequantize=False), "cpu")
    pack_linears(network)
    network.config.update(Hints().as_config())
    encoder = Encoder(tokenizer)

    words = read_prompt(configuration("model=smollm2", "prompt=label_only").prompt)
    word_chats = [words.messages(skill) for skill in skills]
    by_words = scored(network, encoder.encode(word_chats), encoder.label_ids(word_chats[0]))
    chats = [read_prompt(config.prompt).messages(skill) for skill in skills]
    lead = tokenizer.encode(LEAD, add_special_tokens=False)
    by_opening = scored(network, [ids + lead for ids in encoder.encode(chats)], list(opening_ids(tokenizer).values()))
    completions = generated(LocalEngine(network, encoder, BATCH, config.prompt.max_new_tokens), chats)

    readings = [read_answer(one.text, one.finish_reason) for one in completions]
    known = [place for place, one in enumerate(completions) if one.probabilities]
    by_answer = np.log(np.maximum([one.probabilities for one in completions if one.probabilities], 1e-30))
    temperatures = {
        "label": fit_temperature(by_words, codes),
        "opening": fit_temperature(by_opening, codes),
        "reason": fit_temperature(by_answer, codes[known]),
    }
    families = read_families()
    phrases = {family.description for family in families.values()}
    named = [named_kind_and_family(one.text) for one in completions]
    pairs = list(zip(named, entries, strict=True))
    figures = {
        "names": len(entries),
        "cot": label_figures(truth, [reading.label for reading in readings]),
        "cot_readable": rounded(sum(bool(one.answer) for one in readings) / len(readings)),
        "cot_calibration_error": round(calibration_error(by_opening, codes, groups), 4),
        "cot_calibration_error_at_the_answer": round(calibration_error(by_answer, codes[known], [groups[i] for i in known]), 4),
        "label_words": label_figures(truth, [LABELS[one] for one in by_words.argmax(1)]),
        "label_words_calibration_error": round(calibration_error(by_words, codes, groups), 4),
        "reasons": {
            "phrase_is_a_family": rounded(sum(phrase in phrases for _, phrase in named) / len(named)),
            "own_kind": rounded(sum(kind == entry["label"] for (kind, _), entry in pairs) / len(named)),
            "own_family": rounded(
                sum(phrase == families[entry["family"]].description for (_, phrase), entry in pairs) / len(named)
            ),
        },
    }
    return {name: round(value, 4) for name, value in temperatures.items()}, figures


def baselines() -> Figures:
    """On the evaluation corpus: what is to be beaten."""
    corpus = read_reference(REFERENCE)
    skills, truth = corpus["skill"].to_list(), corpus["label"].to_list()
    names, kept_out = read_names(str(LEXICON), str(VALIDATION))
    ngrams = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 5), sublinear_tf=True),
        LogisticRegression(C=10, class_weight="balanced", max_iter=1000),
    ).fit(names["skill"].to_list(), names["label"].to_list())
    return {
        "majority": label_figures(truth, [Label.HARD] * len(truth)),
        "character_ngrams": label_figures(truth, ngrams.predict(skills).tolist()),
        "scratch_model_cot": label_figures(truth, list(tiny_labels(skills))),
        "frozen_model_readout": label_figures(truth, frozen_readout_labels(names, kept_out, skills)),
    }


def tiny_labels(skills: Sequence[str]) -> Iterator[Label]:
    """What the tiny model answers after reasoning."""
    config = configuration("model=tiny", "prompt=cot")
    network, tokenizer = load(config.model, config.quantization, "cpu")
    prompt = read_prompt(config.prompt)
    engine = LocalEngine(network, Encoder(tokenizer), BATCH, config.prompt.max_new_tokens)
    for one in generated(engine, [prompt.messages(skill) for skill in skills]):
        yield read_answer(one.text, one.finish_reason).label


def frozen_readout_labels(names: pl.DataFrame, kept_out: pl.DataFrame | None, skills: Sequence[str]) -> list[Label]:
    """What a read-out says that is fitted, in the same way, on the base without the adapter."""
    assert kept_out is not None
    config = configuration(
        "model=smollm2",
        "prompt=label_only",
        "model.name=models/smollm2/base",
        f"model.readout={NO_READOUT}",
    )
    everything = [*names["skill"], *kept_out["skill"], *skills]
    labels = np.array([CODES[label] for label in [*names["label"], *kept_out["label"]]])
    _, features, _ = features_of(config, everything)
    inside, out = np.arange(names.height), np.arange(names.height, len(labels))
    choice = choose(list(candidates([one[: len(labels)] for one in features], labels, [(inside, out)], len(LABELS))))
    layer = features[choice.place]
    fitted = fit(layer[inside], labels[inside], choice.strength, choice.balanced, len(LABELS))
    return [LABELS[one] for one in fitted.logits(layer[len(labels) :]).argmax(1)]


def main() -> None:
    torch.set_grad_enabled(False)
    temperatures, held_out = held_out_figures()
    hints = Hints(LEAD.strip(), list(OPENINGS.values()), temperatures)
    write_outputs(
        {
            str(FOLDER / "calibration.json"): to_json(hints.as_config()),
            str(FOLDER / "metrics.json"): to_json({"held_out": held_out, "baselines_on_the_corpus": baselines()}),
        }
    )


if __name__ == "__main__":
    run("smollm2 evaluation", main)
