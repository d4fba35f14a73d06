"""`python -m hardsoft.readout fit` fits a read-out of the labels on the hidden states of the model in params.yaml.

A linear map from one hidden state to the three labels, fitted on labelled names in seconds to minutes. Layer, regularisation,
class weights and temperature are chosen on names held out: by cross-validation in which names with the same head word, the last
one, stay together, or on those of `--validation`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from hardsoft.config.engines import LocalEngineConfig
from hardsoft.config.load import PARAMS, load_yaml, validate
from hardsoft.config.machine import find_machine
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError
from hardsoft.core.files import to_json, write_outputs
from hardsoft.core.labels import ABILITIES, Label
from hardsoft.core.progress import Progress
from hardsoft.core.readouts import NO_SKILL, ReadOut, prompt_hash, write_readout
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv, require_columns
from hardsoft.judging.reference import labels_of, read_reference
from hardsoft.prompting.prompts import read_prompt
from hardsoft.statistics.agreement import agreement
from hardsoft.statistics.calibration import reliability
from hardsoft.statistics.classifier import (
    Choice,
    Codes,
    Features,
    Floats,
    Split,
    candidates,
    choose,
    cross_fitted,
    fit,
    fit_temperature,
    folds,
    held_out,
)

LEXICON = "models/lexicon/lexicon.csv"
FOLDER = "models/readouts"
SEED = 42
LAYERS = 8
"""Blocks to choose among, at most, from the middle one to the last."""
CODES = {label.value: code for code, label in enumerate(Label)}


def read_config(prompt: str) -> Config:
    """params.yaml with another prompt option.

    Raises:
        InputError: the option does not score labels, or the engine is a server.
    """
    path = f"conf/prompt/{prompt}.yaml"
    try:
        option = load_yaml(path)
    except FileNotFoundError:
        raise InputError(f"--prompt {prompt}: there is no {path}") from None
    config = validate(load_yaml(PARAMS) | {"prompt": option}, f"{PARAMS} with {path}")
    if config.prompt.mode != "label":
        raise InputError(f"--prompt {prompt}: a read-out is for prompts of mode label, such as label_only")
    if not isinstance(config.engine, LocalEngineConfig):
        raise InputError("engine.kind: a read-out needs a model in this process; set engine=local")
    return config


def read_names(labels: str, validation: str | None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The labelled names to fit on, those of the validation left out, and the latter.

    Returns:
        Tables as `read_reference` returns them.

    Raises:
        InputError: fewer than two labels, or one that only names of one head word have.
    """
    names = read_labelled(labels)
    kept_out = read_labelled(validation) if validation else None
    if kept_out is not None:
        names = names.join(kept_out, on="key", how="anti").sort("key")
    for path, table in ((labels, names), (validation, kept_out)):
        if table is not None and table["label"].n_unique() < 2:
            found = f"all {table.height} names are {table['label'][0]}" if table.height else "there is no name to fit on"
            raise InputError(f"{path}: {found}; a read-out needs two labels or more, and a dozen names of each")
    for label in () if validation else set(names["label"]):
        if len(set(head_words(names.filter(pl.col("label") == label)["skill"].to_list()))) < 2:
            raise InputError(f"{labels}: the names labelled {label} all end in one word; cross-validation needs two such words")
    return names, kept_out


def read_labelled(path: str) -> pl.DataFrame:
    """The names in a file that have a label, as `read_reference` returns them; a person may have left some without."""
    table = read_csv(path)
    require_columns(table, path, ["skill", "label"], "expected skill,label,note")
    return labels_of(table.with_row_index("line", offset=2).drop_nulls("label"), path)


def head_word(skill: str) -> str:
    """The last word of a name, which says what it is."""
    return skill.lower().split()[-1]


def head_words(skills: Sequence[str]) -> list[str]:
    """The last word of each name."""
    return [head_word(skill) for skill in skills]


def count_overlap(names: pl.DataFrame, reference: pl.DataFrame, allowed: bool, labels: str, path: str) -> int:
    """How many names are in the evaluation's reference.

    Raises:
        InputError: some are, and it is not allowed.
    """
    both = names.join(reference, on="key", how="semi")["skill"].to_list()
    if both and not allowed:
        raise InputError(
            f"{labels}: {len(both)} of its names are in {path}, {both[0]!r} say: figures on names that a read-out was fitted on "
            "are no figures; leave them out, or tell --allow-overlap, which metrics will say"
        )
    return len(both)


def features_of(config: Config, skills: Sequence[str]) -> tuple[list[int], list[Features], str]:
    """The hidden states of the configured model at the end of each name's prompt.

    Returns:
        The layers, for each of them the states [name, width], and the model's identity.
    """
    from hardsoft.engines.local.loading import load, weights_identity
    from hardsoft.engines.local.packing import pack_linears
    from hardsoft.engines.local.states import last_states
    from hardsoft.engines.local.tokens import Encoder

    assert isinstance(config.engine, LocalEngineConfig)
    machine = find_machine(config)
    quantization = config.quantization.model_copy(update={"dequantize": machine.dequantize})
    network, tokenizer = load(config.model, quantization, machine.device)
    pack_linears(network)
    prompt = read_prompt(config.prompt)
    prompts = Encoder(tokenizer, config.model.chat_template).encode([prompt.messages(skill) for skill in skills])
    depth, width = network.config.get_text_config().num_hidden_layers, network.config.get_text_config().hidden_size
    layers = sorted({round(layer) for layer in np.linspace((depth + 1) // 2, depth, min(LAYERS, depth - (depth + 1) // 2 + 1))})
    features = [np.empty((len(skills), width), dtype=np.float32) for _ in layers]
    with Progress("hidden states", len(skills), "names") as progress:
        for rows, states in last_states(network, prompts, machine.batch_size, layers):
            for place in range(len(layers)):
                features[place][rows] = states[:, place].numpy()
            progress.advance(len(rows))
    return layers, features, weights_identity(config.model)


def figures(choice: Choice, layers: Sequence[int], truth: Codes, groups: Sequence[str], temperature: float) -> dict[str, Any]:
    """How the chosen setting does on the names held out.

    Args:
        truth, groups: of those names.
    """
    given, labels = choice.logits.argmax(1), list(Label)
    result = agreement([labels[code] for code in truth], [labels[code] for code in given], ABILITIES, labels)
    return {
        "layer": layers[choice.place],
        "strength": choice.strength,
        "balanced": choice.balanced,
        "temperature": round(temperature, 4),
        "held_out": {
            **{key: _rounded(value) for key, value in result.items()},
            "calibration_error": round(calibration_error(choice.logits, truth, groups), 4),
            "confusion": {
                label: {other: int(((truth == CODES[label]) & (given == CODES[other])).sum()) for other in Label}
                for label in Label
            },
        },
    }


def calibration_error(logits: Floats, truth: Codes, groups: Sequence[str]) -> float:
    """The expected calibration error under temperatures that are fitted without a name and those of its group."""
    probabilities = cross_fitted(logits, truth, groups, SEED)
    right = (probabilities.argmax(1) == truth).astype(np.float64)
    return reliability(probabilities.max(1), right, np.ones(len(truth)), 0.95)[1]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(figure) for key, figure in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def try_settings(features: Sequence[Features], labels: Codes, splits: Sequence[Split]) -> list[Choice]:
    """Every setting on the names held out."""
    tried = []
    with Progress("settings", len(features) * 8, "tried") as progress:
        for choice in candidates(features, labels, splits, len(Label)):
            tried.append(choice)
            progress.advance()
    return tried


def fit_readout(options: argparse.Namespace) -> None:
    """Fit, and write the read-out and its figures."""
    config = read_config(options.prompt)
    names, kept_out = read_names(options.labels, options.validation)
    reference = config.data.reference
    overlap = count_overlap(names, read_reference(reference), options.allow_overlap, options.labels, reference)
    everything = names if kept_out is None else pl.concat([names, kept_out])
    skills = everything["skill"].to_list()
    labels = np.array([CODES[label] for label in everything["label"]])
    groups = head_words(skills)

    layers, features, model = features_of(config, skills)
    whole: Split = (np.arange(names.height), np.arange(names.height, len(skills)))
    splits = [whole] if kept_out is not None else folds(labels, groups, SEED)
    tried = try_settings(features, labels, splits)
    choice = choose(tried)
    order = held_out(splits)
    temperature = fit_temperature(choice.logits, labels[order])
    fitted = fit(features[choice.place][whole[0]], labels[whole[0]], choice.strength, choice.balanced, len(Label))

    path = f"{FOLDER}/{options.name}.safetensors"
    readout = ReadOut(
        weights=fitted.weights.astype(np.float32),
        biases=fitted.biases.astype(np.float32),
        layer=layers[choice.place],
        temperature=temperature,
        model=model,
        prompt=prompt_hash(read_prompt(config.prompt).messages(NO_SKILL)),
        overlap=overlap,
    )
    found = {
        "names": names.height,
        "model": model,
        "prompt": options.prompt,
        "overlap": overlap,
        **figures(choice, layers, labels[order], [groups[place] for place in order], temperature),
        "by_layer": {
            str(layer): round(max(setting.macro_recall for setting in tried if setting.place == place), 4)
            for place, layer in enumerate(layers)
        },
    }
    write_readout(path, readout)
    write_outputs({f"{FOLDER}/{options.name}.json": to_json(found)})
    print(to_json(found), end="")
    print(f"{path}: label by it with `dvc exp run -S prompt={options.prompt} -S model.readout={path}`")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.readout", description="Fit a read-out of labels.")
    parser.add_argument("action", choices=["fit"])
    parser.add_argument("--labels", default=LEXICON, metavar="FILE", help=f"columns skill, label (default: {LEXICON})")
    parser.add_argument("--validation", metavar="FILE", help="the same columns: the names to choose by, instead of folds")
    parser.add_argument("--prompt", default="label_only", metavar="OPTION", help="of mode label (default: label_only)")
    parser.add_argument("--name", default="mine", help=f"of the files in {FOLDER} (default: mine)")
    parser.add_argument("--allow-overlap", action="store_true", help="fit on names of the evaluation's reference, too")
    fit_readout(parser.parse_args())


if __name__ == "__main__":
    run("readout", main)
