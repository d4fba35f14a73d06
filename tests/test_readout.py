"""Read-outs: fitted by the command, beside transformers' own hidden states, in the pipeline, and refused if they do not fit."""

import copy
import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hardsoft.config.load import load_config
from hardsoft.config.machine import machine_on
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.core.labels import Label
from hardsoft.core.readouts import ReadOut, read_readout, write_readout
from hardsoft.engines.local.build import local_engine
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.plain import Plain
from hardsoft.engines.local.readout import decoder_of, end_in
from hardsoft.engines.local.states import last_states
from hardsoft.engines.local.tokens import Encoder
from hardsoft.prompting.answers import is_before_answer
from hardsoft.readout import main
from hardsoft.statistics.classifier import NEVER, cross_fitted, fit, fit_temperature, folds
from hardsoft.store.key import completion_setting
from tests.support.models import Method, chats, complete, model, reference, some_skills
from tests.support.repositories import ROOT, Repository, built_once

LEXICON = ROOT / "models/lexicon/lexicon.csv"
MINE = "models/readouts/mine.safetensors"


def labelled(step: int) -> str:
    """A part of the lexicon, as a person's own labels might be: without families."""
    with open(LEXICON, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::step]
    return "skill,label\n" + "".join(f'"{row["skill"]}",{row["label"]}\n' for row in rows)


def figures(repository: Repository, name: str = "mine") -> dict[str, object]:
    found: dict[str, object] = json.loads(repository.read(f"models/readouts/{name}.json"))
    return found


@pytest.fixture(scope="module")
def fitted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a read-out of the tiny model, fitted on a part of the lexicon; not to be changed."""

    def build(path: Path) -> None:
        shutil.copytree(template, path)
        repository = Repository(path)
        repository.write("mine.csv", labelled(20))
        repository.done("python", "-m", "hardsoft.readout", "fit", "--labels", "mine.csv")

    return built_once(tmp_path_factory, "fitted", build)


@pytest.fixture
def mine(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of the test's own with the read-out in it; the test runs there."""
    shutil.copytree(fitted, tmp_path / "repository")
    monkeypatch.chdir(tmp_path / "repository")
    repository = Repository(tmp_path / "repository")
    repository.configure("prompt=label_only", f"model.readout={MINE}")
    return repository


def scored(skills: list[str]) -> list[Completion]:
    completions: dict[int, Completion] = {}
    local_engine(load_config(), machine_on(load_config(), "cpu")).complete(chats(skills, "label_only"), completions.update)
    return [completions[row] for row in range(len(skills))]


def by_hand(readout: ReadOut, skills: list[str]) -> torch.Tensor:
    """Probabilities from the states that transformers itself gives out, one whole prompt at a time."""
    network, tokenizer = model()
    states = [
        network(torch.tensor([ids]), output_hidden_states=True).hidden_states[readout.layer][0, -1].detach()
        for ids in Encoder(tokenizer).encode(chats(skills, "label_only"))
    ]
    if readout.layer == network.config.num_hidden_layers:  # transformers gives the last one behind the norm
        states = [state / network.model.norm.weight.detach() for state in states]
    normal = torch.stack([state / state.square().mean().sqrt() for state in states])
    return ((normal @ torch.tensor(readout.weights).T + torch.tensor(readout.biases)) / readout.temperature).softmax(-1)


def test_the_figures_beside_it_are_cross_validated_and_better_than_chance(fitted: Path) -> None:
    found = figures(Repository(fitted))
    held_out = found["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["n"] == found["names"] == labelled(20).count("\n") - 1
    assert held_out["macro_recall"] > 0.5
    assert sum(sum(row.values()) for row in held_out["confusion"].values()) == held_out["n"]
    assert 0 <= held_out["calibration_error"] < 0.2
    readout = read_readout(str(fitted / MINE))
    assert (readout.layer, round(readout.temperature, 4)) == (found["layer"], found["temperature"])
    assert readout.overlap == 0


def test_scores_are_those_of_transformers_own_states_and_no_block_above_is_computed(mine: Repository) -> None:
    readout = replace(read_readout(MINE), layer=2)
    write_readout(MINE, readout)
    skills = some_skills(30)
    expected = by_hand(readout, skills)
    found = scored(skills)
    assert [one.probabilities for one in found] == [pytest.approx(row, abs=1e-5) for row in expected.tolist()]
    assert [one.text for one in found] == [f"Answer: {list(Label)[place]}" for place in expected.argmax(1)]
    network, _ = copy.deepcopy(model())
    end_in(network, readout)
    assert len(decoder_of(network).layers) == 2


def test_the_plain_path_and_a_quantised_model_score_alike(mine: Repository) -> None:
    readout, skills = read_readout(MINE), some_skills(60)
    methods: tuple[Method, ...] = ("none", "nf4")
    for method, tolerance in zip(methods, (1e-5, 0.35), strict=True):
        network, tokenizer = copy.deepcopy(model(method))
        end_in(network, readout)
        engine = LocalEngine(network, Encoder(tokenizer), 8, 4, scoring=True, reads_out=True)
        engine._way = Plain(network)
        completions: dict[int, Completion] = {}
        engine.complete(chats(skills, "label_only"), completions.update)
        expected = by_hand(readout, skills)
        for row, probabilities in enumerate(expected.tolist()):
            assert completions[row].probabilities == pytest.approx(probabilities, abs=tolerance)


def test_states_are_the_same_in_any_batch_and_for_an_architecture_without_the_loop() -> None:
    network, tokenizer = model()
    prompts = Encoder(tokenizer).encode(chats(some_skills(40), "label_only"))
    alone = torch.empty(len(prompts), 2, network.config.hidden_size)
    together = torch.empty_like(alone)
    for rows, states in last_states(network, prompts, 1, [1, 3]):
        alone[rows] = states
    for rows, states in last_states(network, prompts, 7, [1, 3]):
        together[rows] = states
    assert torch.allclose(alone, together, atol=1e-4)
    assert torch.allclose(alone.square().mean(-1), torch.ones(len(prompts), 2), atol=1e-4)
    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=64))
    with pytest.raises(InputError, match="GPT2LMHeadModel: a read-out needs blocks named `layers`"):
        list(last_states(other, prompts, 1, [1]))


def test_the_store_tells_read_outs_apart_where_they_label_and_only_there(mine: Repository) -> None:
    settings = [completion_setting(load_config(), machine_on(load_config(), "cpu"))]
    write_readout(MINE, replace(read_readout(MINE), temperature=2.0))
    settings.append(completion_setting(load_config(), machine_on(load_config(), "cpu")))
    assert settings[0] != settings[1]
    mine.configure(f"model.readout={MINE}")
    reasoned = completion_setting(load_config(), machine_on(load_config(), "cpu"))
    mine.configure()
    assert reasoned == completion_setting(load_config(), machine_on(load_config(), "cpu"))


@pytest.mark.slow
def test_an_experiment_labels_by_it_and_metrics_say_what_it_was_fitted_on(mine: Repository) -> None:
    evaluated = "".join(f'"{row["skill"]}",{row["label"]}\n' for row in reference()[:199])
    mine.write("mine.csv", labelled(60) + evaluated)
    refused = mine.run("python", "-m", "hardsoft.readout", "fit", "--labels", "mine.csv")
    assert refused.code == 1
    assert "readout: mine.csv: 199 of its names are in data/reference/labels.csv" in refused.output
    assert "--allow-overlap" in refused.output
    before = read_readout(MINE)
    mine.done("python", "-m", "hardsoft.readout", "fit", "--labels", "mine.csv", "--allow-overlap")
    assert read_readout(MINE).overlap == 199
    assert read_readout(MINE).layer <= 3
    assert not np.array_equal(before.weights, read_readout(MINE).weights)

    options = ("prompt=label_only", f"model.readout={MINE}")
    mine.done("git", "add", "-A")
    mine.done("dvc", "exp", "run", *(word for option in options for word in ("-S", option)))
    accuracy = json.loads(mine.read("metrics/accuracy.json"))
    assert accuracy["reference"]["note"] == f"199 names of the reference are among those that {MINE} was fitted on"
    with open(mine.path / "data/interim/probabilities.csv", encoding="utf-8", newline="") as file:
        given = {row["skill"]: [float(row[label.lower()]) for label in Label] for row in csv.DictReader(file)}
    expected = by_hand(read_readout(MINE), list(given)).tolist()
    assert list(given.values()) == [pytest.approx(row, abs=2e-4) for row in expected]


@pytest.mark.slow
def test_names_kept_out_choose_instead_of_folds(mine: Repository) -> None:
    mine.write("kept_out.csv", labelled(90))
    mine.done(
        "python", "-m", "hardsoft.readout", "fit", "--labels", "mine.csv", "--validation", "kept_out.csv", "--name", "other"
    )
    found, rows = figures(mine, "other"), set(labelled(90).splitlines()[1:])
    held_out = found["held_out"]
    assert isinstance(held_out, dict)
    assert held_out["n"] == len(rows)
    assert found["names"] == len([line for line in labelled(20).splitlines()[1:] if line not in rows])


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ("skill,label\nWelding,Hard\nPlumbing,Hard\n", [], "all 2 names are Hard; a read-out needs two labels or more"),
        ("skill,label\nWelding,Hard\nTact,\nPlumbing,Hard\n", [], "all 2 names are Hard"),
        ("skill,label\n", [], "there is no name to fit on"),
        ("skill,label\nWelding,Hard\nPlumbing,Hard\nCalm Tone,Soft\n", [], "the names labelled Soft all end in one word"),
        ("skill,label\nWelding,Tough\n", [], "line 2: skill 'Welding' has the label 'Tough'"),
        ("name,kind\nWelding,Hard\n", [], "expected skill,label"),
        (None, ["--prompt", "cot"], "--prompt cot: a read-out is for prompts of mode label"),
        (None, ["--prompt", "none_such"], "there is no conf/prompt/none_such.yaml"),
        (None, ["--labels", "nowhere.csv"], "nowhere.csv: no such file"),
        (None, ["--validation", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: str | None, options: list[str], says: str
) -> None:
    monkeypatch.chdir(ROOT)
    if labels is not None:
        (tmp_path / "labels.csv").write_text(labels, encoding="utf-8")
        options = ["--labels", str(tmp_path / "labels.csv")]
    monkeypatch.setattr(sys, "argv", ["readout", "fit", *options])
    with pytest.raises(InputError) as raised:
        main()
    assert says in str(raised.value)


def test_a_read_out_for_another_model_or_of_another_kind_is_refused(mine: Repository) -> None:
    readout = read_readout(MINE)
    for changed, says in [
        (replace(readout, model="checkpoint 0000"), "was fitted on checkpoint 0000, and the model is checkpoint "),
        (replace(readout, layer=9), "is for a model of width 192 and 9 layers or more, and this one has 192 and 3"),
        (replace(readout, weights=readout.weights[:, :100]), "is for a model of width 100 and"),
    ]:
        write_readout(MINE, changed)
        with pytest.raises(InputError, match=f"model.readout {MINE}: {says}"):
            local_engine(load_config(), machine_on(load_config(), "cpu"))
    write_readout(MINE, replace(readout, weights=readout.weights[:2]))
    with pytest.raises(InputError, match="is no read-out of three labels"):
        read_readout(MINE)
    for content in (b"", b"rubbish", (ROOT / "models/tiny/checkpoint/model.safetensors").read_bytes()):
        Path(MINE).write_bytes(content)
        with pytest.raises(InputError, match="is no read-out; `python -m hardsoft"):
            read_readout(MINE)
    Path(MINE).unlink()
    run = mine.stage("classify")
    assert run.code == 1


def test_another_prompt_than_the_read_outs_is_noted(mine: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    mine.write("conf/prompt/label_only.jinja", "Which kind of skill is {{ skill }}?")
    scored(["Welding"])
    assert "was fitted with another prompt than this one" in capsys.readouterr().err


def test_a_label_that_no_name_has_is_never_given() -> None:
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = (features[:, 0] > 0).astype(np.int64)
    linear = fit(features, labels, 1.0, False, 3)
    assert (linear.biases[2], linear.weights[2].any()) == (NEVER, False)
    assert (linear.logits(features).argmax(1) == labels).mean() > 0.9


def test_folds_keep_groups_together_and_hold_out_each_item_once() -> None:
    generator = np.random.default_rng(1)
    labels, groups = generator.integers(0, 3, 300), [f"word {one}" for one in generator.integers(0, 60, 300)]
    splits = folds(labels, groups, 1)
    assert sorted(np.concatenate([out for _, out in splits])) == list(range(300))
    for inside, out in splits:
        assert not {groups[place] for place in inside} & {groups[place] for place in out}


def test_the_temperature_of_overconfident_logits_is_found() -> None:
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(20_000, 3))
    drawn = np.array([generator.choice(3, p=np.exp(row) / np.exp(row).sum()) for row in logits])
    assert fit_temperature(3 * logits, drawn) == pytest.approx(3, rel=0.05)
    probabilities = cross_fitted(3 * logits, drawn, [str(place % 50) for place in range(len(drawn))], 2)
    assert probabilities.sum(1) == pytest.approx(1)
    assert np.abs(probabilities - np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max() < 0.05


def test_where_step_one_decides_the_probabilities_are_those_of_that_place() -> None:
    """The tiny model writes "Step 1: Hard, as it names …": its label there takes the part of an opening."""
    skills = some_skills(50)
    network, tokenizer = copy.deepcopy(model())
    network.config.label_openings = {"after": "Step 1:", "words": [f" {label}" for label in Label]}
    network.config.label_temperature = {"opening": 2.0, "reason": 5.0}
    completions: dict[int, Completion] = {}
    LocalEngine(network, Encoder(tokenizer), 8, 60).complete(chats(skills), completions.update)
    plain = complete(skills)
    words = [tokenizer.encode(f" {label}", add_special_tokens=False)[0] for label in Label]
    for row, prompt in enumerate(Encoder(tokenizer).encode(chats(skills))):
        logits = network(torch.tensor([prompt])).logits[0, -1, words]
        assert completions[row].text == plain[row].text
        assert is_before_answer(completions[row].text.rpartition(" ")[0])
        assert completions[row].probabilities == pytest.approx((logits / 2).softmax(-1).tolist(), abs=1e-4)
