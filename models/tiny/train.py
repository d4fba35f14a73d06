"""Train the tiny checkpoint from scratch on the lexicon: tokenizer, model, and its evaluation on names held out.

Run as `make tiny-model`. The model learns to answer every shipped prompt as a big model would: two short steps and
`Answer: X`. Each step takes 32 names under one prompt option; the keys and values of the tokens that their prompts share are
computed once and used by all of them.
"""

import argparse
import csv
import hashlib
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy, dropout
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from hardsoft.core.chat import Completion
from hardsoft.core.labels import Label
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.tokens import Encoder
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.prompts import Prompt
from hardsoft.statistics.intervals import Estimate
from hardsoft.statistics.stratified import Stratum, post_stratified

FOLDER = Path("models/tiny")
LEXICON = Path("models/lexicon")
SEED = 7
STEPS = 700
WARM_UP = 150  # steps on label_only alone, whose next token is the label: what names mean is learned first, reasoning on top
EVALUATE_EVERY = 50
BATCH = {Label.HARD: 18, Label.SOFT: 9, Label.UNKNOWN: 5}
PROMPT_WEIGHTS = {"cot": 8, "label_only": 4, "study": 3, "zero_shot": 3, "codebook": 1}
DECISION_WEIGHT = 5.0  # of the tokens that are a label
DROPOUT = 0.1
LEARNING_RATE = 1e-3
AVERAGING = 0.98  # decay of the exponential moving average of the weights, which is what is evaluated and kept
VOCABULARY = 2048
SPECIAL = ["<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role != 'assistant' %}{{ '<|end|>' }}{% elif not loop.last %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
REASON = {
    Label.HARD: "It is learned and can be tested.",
    Label.SOFT: "It is behaviour, useful in any occupation.",
    Label.UNKNOWN: "No ability can be read from the name.",
}

Entry = dict[str, str]


def read_lexicon() -> tuple[list[Entry], list[Entry], list[Entry]]:
    """The lexicon split into train, validation and test (80 : 10 : 10) by a hash of the name."""
    with open(LEXICON / "lexicon.csv", encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    parts: tuple[list[Entry], list[Entry], list[Entry]] = ([], [], [])
    for entry in entries:
        place = int(hashlib.sha256(entry["skill"].lower().encode()).hexdigest(), 16) % 10
        parts[max(0, place - 7)].append(entry)
    return parts


def read_prompts() -> dict[str, Prompt]:
    """Every shipped prompt option by name."""
    codebook = Path("docs/codebook.md").read_text(encoding="utf-8")
    prompts = {}
    for path in sorted(Path("conf/prompt").glob("*.yaml")):
        option = yaml.safe_load(path.read_text(encoding="utf-8"))
        template = Path(option["template"]).read_text(encoding="utf-8")
        prompts[path.stem] = Prompt(option["system"], template, option["prefill"], codebook)
    return prompts


def reasoned_answer(entry: Entry, descriptions: dict[str, str]) -> str:
    """The assistant's turn where it reasons first."""
    label = Label(entry["label"])
    return f"Step 1: {label}, as it names {descriptions[entry['family']]}.\nStep 2: {REASON[label]}\nAnswer: {label}"


@dataclass(frozen=True)
class Target:
    """What the model should write after a prompt, as token ids with the weight of each in the loss."""

    ids: list[int]
    weights: list[float]


def target(tokenizer: PreTrainedTokenizerFast, entry: Entry, prompt: Prompt, descriptions: dict[str, str]) -> Target:
    """The target for an entry under a prompt, whose prefill is left out."""
    text = (
        f" {entry['label']}" if prompt.prefill == "Answer:" else reasoned_answer(entry, descriptions).removeprefix(prompt.prefill)
    )
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    labels = {tokenizer.encode(f" {label}", add_special_tokens=False)[0] for label in Label}
    return Target(ids, [DECISION_WEIGHT if token in labels else 1.0 for token in ids])


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE: every name can be written in it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama shape whose layers fit bitsandbytes (inputs in multiples of 64, outputs of 32), with dropout added."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for name, module in model.named_modules():
        if name.endswith(("o_proj", "down_proj", "embed_tokens")):
            module.register_forward_hook(add_dropout)
    return model


def add_dropout(module: Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return dropout(output, DROPOUT, module.training)


def vary_case(name: str, chance: random.Random) -> str:
    """The forms in which CVs write a name."""
    draw = chance.random()
    return name if draw < 0.6 else name.lower() if draw < 0.8 else name.title() if draw < 0.95 else name.upper()


def batch_loss(model: LlamaForCausalLM, prompts: list[list[int]], targets: list[Target]) -> Tensor:
    """Weighted cross-entropy of the targets' tokens; what all prompts begin with is computed once."""
    shared = next(place for place, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    past = model(torch.tensor([prompts[0][:shared]]), use_cache=True).past_key_values
    rows = len(prompts)
    cache = DynamicCache([(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)) for layer in past.layers])

    suffixes = [prompt[shared:] + target.ids for prompt, target in zip(prompts, targets, strict=True)]
    width = max(map(len, suffixes))
    ids, weights = torch.zeros(rows, width, dtype=torch.long), torch.zeros(rows, width)
    mask = torch.ones(rows, shared + width, dtype=torch.long)
    for row, (suffix, target) in enumerate(zip(suffixes, targets, strict=True)):
        ids[row, : len(suffix)] = torch.tensor(suffix)
        mask[row, shared + len(suffix) :] = 0
        weights[row, len(suffix) - len(target.ids) : len(suffix)] = torch.tensor(target.weights)
    positions = torch.arange(shared, shared + width).expand(rows, -1)
    logits = model(ids, past_key_values=cache, attention_mask=mask, position_ids=positions).logits
    losses = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights[:, 1:].flatten()).sum() / weights.sum()


@dataclass(frozen=True)
class Evaluation:
    """Of a model under one prompt, on names held out."""

    balanced: Estimate
    """Mean recall over Hard and Soft, with its 95 % interval."""
    unknown_recall: float
    readable: float
    """Share of completions that state a verdict."""

    def __str__(self) -> str:
        balanced = f"{self.balanced.value:.3f} [{self.balanced.low:.3f}, {self.balanced.high:.3f}]"
        return f"balanced accuracy {balanced}, Unknown recall {self.unknown_recall:.3f}, readable {self.readable:.3f}"


def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: Prompt, entries: list[Entry]) -> Evaluation:
    """Complete the prompt for every entry and read the answers."""
    model.eval()
    completions: dict[int, Completion] = {}
    engine = LocalEngine(model, Encoder(tokenizer), batch_size=128, max_new_tokens=60)
    engine.complete([prompt.messages(entry["skill"]) for entry in entries], completions.update)
    readings = [read_answer(completions[row].text, completions[row].finish_reason) for row in range(len(entries))]
    given = {
        label: [reading.label == label for entry, reading in zip(entries, readings, strict=True) if entry["label"] == label]
        for label in Label
    }
    strata = [Stratum(sum(given[label]), len(given[label]), size=len(entries)) for label in (Label.HARD, Label.SOFT)]
    unknown = given[Label.UNKNOWN]
    readable = sum(bool(reading.answer) for reading in readings) / len(readings)
    return Evaluation(post_stratified(strata, 0.95), sum(unknown) / len(unknown), readable)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=FOLDER / "checkpoint")
    arguments = parser.parse_args()
    set_seed(SEED)
    chance = random.Random(SEED)
    with open(LEXICON / "families.csv", encoding="utf-8", newline="") as file:
        descriptions = {row["family"]: row["description"] for row in csv.DictReader(file)}
    train, validation, test = read_lexicon()
    prompts = read_prompts()

    texts = [entry["skill"] for entry in train] * 2 + [entry["skill"].lower() for entry in train]
    texts += [reasoned_answer(entry, descriptions) for entry in train[::10]]
    texts += [message["content"] for prompt in prompts.values() for message in prompt.messages("")]
    tokenizer = train_tokenizer(texts)
    model = new_model(tokenizer)
    print(
        f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} M parameters; {len(train)} names to train on",
        file=sys.stderr,
    )

    pools = {label: [entry for entry in train if entry["label"] == label] for label in Label}
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.1, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=arguments.steps, pct_start=0.1)
    best = -1.0
    averaged: Any = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGING))
    model.train()
    for step in (bar := tqdm(range(1, arguments.steps + 1), desc="train", disable=None)):
        drawn = chance.choices(list(PROMPT_WEIGHTS), list(PROMPT_WEIGHTS.values()))[0]
        prompt = prompts["label_only" if step <= WARM_UP else drawn]
        batch = [entry for label, size in BATCH.items() for entry in chance.sample(pools[label], size)]
        asked = Encoder(tokenizer).encode([prompt.messages(vary_case(entry["skill"], chance)) for entry in batch])
        loss = batch_loss(model, asked, [target(tokenizer, entry, prompt, descriptions) for entry in batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        bar.set_postfix(loss=f"{loss.item():.3f}")
        if (step % EVALUATE_EVERY == 0 and step >= arguments.steps // 3) or step == arguments.steps:
            result = evaluate(averaged.module, tokenizer, prompts["cot"], validation)
            score = (2 * result.balanced.value + result.unknown_recall) / 3 if result.readable > 0.98 else 0.0
            print(f"step {step}: loss {loss.item():.3f}, validation {result}", file=sys.stderr)
            if score > best:
                best = score
                save(averaged.module, tokenizer, arguments.output)
    model = LlamaForCausalLM.from_pretrained(arguments.output)
    for name, prompt in prompts.items():
        print(f"test, {name}: {evaluate(model, tokenizer, prompt, test)}")


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
