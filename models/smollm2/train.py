"""Train the LoRA adapter on the lexicon: to answer every shipped prompt in two short steps, the kind of thing first.

Run as `make smollm2-adapter`. Each step takes names of all three labels under one prompt option; the keys and values of the
tokens that their prompts share are computed once and used by all of them.
"""

import argparse
import csv
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoTokenizer, DynamicCache, LlamaForCausalLM, PreTrainedTokenizerBase, set_seed

from hardsoft.core.errors import InputError
from hardsoft.core.labels import ABILITIES, Label
from hardsoft.core.runner import run
from hardsoft.engines.local.tokens import Encoder
from hardsoft.prompting.prompts import Prompt
from models.smollm2.split import LEXICON, VALIDATION, Entry, read_entries
from models.smollm2.targets import LEAD, Target, check_tokens, opening_ids, read_families, target

FOLDER = Path("models/smollm2")
SEED = 8
STEPS = 320
NAMES = 32
MIX = {Label.HARD: 18, Label.SOFT: 8, Label.UNKNOWN: 6}
PROMPT_SHARES = {"cot": 0.50, "label_only": 0.17, "study": 0.12, "zero_shot": 0.11, "codebook": 0.10}
NAMES_SHARE = {"study": 1 / 2, "zero_shot": 1 / 3, "codebook": 0.4}  # of a step's names, under the prompts that cost more
FROZEN_PREFIX = 200  # tokens from which on no gradient flows through what prompts share: it would cost most of the step
RANK, ALPHA = 16, 32
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 4e-4
WEIGHT_DECAY = 0.01
WARM_UP = 15
SAVE_EVERY = 40
EVALUATED = 400
COLUMNS = ["step", "prompt", "names", "loss", "decision_loss", "learning_rate"]


def read_prompts() -> dict[str, Prompt]:
    """Every shipped prompt option by name."""
    codebook = Path("docs/codebook.md").read_text(encoding="utf-8")
    prompts = {}
    for name in PROMPT_SHARES:
        option = yaml.safe_load(Path(f"conf/prompt/{name}.yaml").read_text(encoding="utf-8"))
        template = Path(option["template"]).read_text(encoding="utf-8")
        prompts[name] = Prompt(option["system"], template, option["prefill"], codebook)
    return prompts


def training_entries() -> list[Entry]:
    """The lexicon without the names that are kept out."""
    kept_out = {entry["skill"] for entry in read_entries(VALIDATION)}
    return [entry for entry in read_entries(LEXICON) if entry["skill"] not in kept_out]


def prompt_order(steps: int, chance: random.Random) -> list[str]:
    """The prompt option of each step: in the intended shares, shuffled."""
    ends = [round(steps * sum(list(PROMPT_SHARES.values())[: place + 1])) for place in range(len(PROMPT_SHARES))]
    order = [name for name, start, end in zip(PROMPT_SHARES, [0, *ends], ends, strict=False) for _ in range(end - start)]
    chance.shuffle(order)
    return order


def draw(entries: list[Entry], chance: random.Random) -> Iterator[Entry]:
    """Entries without end; none comes again before all others have come."""
    while True:
        yield from chance.sample(entries, len(entries))


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones."""
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "amx_bf16" in cpu.read_text(encoding="utf-8")


def load_base(folder: Path, dtype: torch.dtype) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The converted base and its tokenizer.

    Raises:
        InputError: there is none.
    """
    if not (folder / "model.safetensors").exists():
        raise InputError(f"{folder} holds no base model; `PYTHONPATH=src python -m models.smollm2.base` makes it")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_tokens(tokenizer)
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer


@dataclass(frozen=True)
class States:
    """Final hidden states of a batch of token sequences, those of their shared beginning left out."""

    hidden: Tensor
    """Sequence, place, width."""
    shared: int
    """Tokens left out."""


def hidden_states(network: LlamaForCausalLM, rows: list[list[int]], shared: int) -> States:
    """Run token sequences whose first `shared` tokens are the same; those are computed once."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and shared <= FROZEN_PREFIX):
        past = network.model(torch.tensor([rows[0][:shared]]), use_cache=True).past_key_values
    count, width = len(rows), max(map(len, rows)) - shared
    cache = DynamicCache(
        [(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)) for layer in past.layers]
    )
    ids, mask = torch.zeros(count, width, dtype=torch.long), torch.ones(count, shared + width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens) - shared] = torch.tensor(tokens[shared:])
        mask[row, len(tokens) :] = 0
    places = torch.arange(shared, shared + width).expand(count, -1)
    output = network.model(ids, past_key_values=cache, attention_mask=mask, position_ids=places)
    return States(output.last_hidden_state, shared)


def shared_length(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with, the last token of each left to itself."""
    limit = min(map(len, prompts)) - 1
    return next((place for place in range(limit) if len({prompt[place] for prompt in prompts}) > 1), limit)


def batch_loss(network: LlamaForCausalLM, prompts: list[list[int]], targets: list[Target]) -> tuple[Tensor, float]:
    """Weighted cross-entropy of the targets' tokens, and the mean of the deciding tokens' alone."""
    rows = [prompt + answer.ids for prompt, answer in zip(prompts, targets, strict=True)]
    states = hidden_states(network, rows, shared_length(prompts))
    chosen: list[Tensor] = []
    for row, (prompt, answer) in enumerate(zip(prompts, targets, strict=True)):
        start = len(prompt) - states.shared - 1
        chosen.append(states.hidden[row, start : start + len(answer.ids)])
    # Only the targets' places go through the output layer, a fifth of the model.
    logits = network.lm_head(torch.cat(chosen)).float()
    wanted = torch.tensor([token for answer in targets for token in answer.ids])
    weights = torch.tensor([weight for answer in targets for weight in answer.weights])
    losses = cross_entropy(logits, wanted, reduction="none")
    decisions = losses.detach()[weights > 1].mean().item()
    return (losses * weights).sum() / weights.sum(), decisions


def learning_rate_share(step: int, steps: int) -> float:
    """Of the highest learning rate, at a step counted from 0: a linear warm-up, then a cosine to 0."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, steps - WARM_UP)))


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write the adapter as peft reads it, in float16, the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: tensor.half().contiguous() for key, tensor in get_peft_model_state_dict(adapted).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = adapted.peft_config["default"].to_dict()
    # Sets have no order of their own, and enumerations are no JSON.
    plain = {key: sorted(value) if isinstance(value, set | list) else value for key, value in config.items()}
    text = json.dumps({**plain, "inference_mode": True}, indent=2, sort_keys=True, default=lambda value: value.value)
    (folder / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


@torch.no_grad()
def decide(network: LlamaForCausalLM, prompts: list[list[int]], candidates: dict[Label, int]) -> list[Label]:
    """The label whose token is the likeliest after each prompt."""
    labels = list(candidates)
    # In float32: rounded to bfloat16, two candidates would tie.
    rows = network.lm_head.weight[list(candidates.values())].float()
    decided: list[Label] = []
    for start in range(0, len(prompts), NAMES):
        batch = prompts[start : start + NAMES]
        states = hidden_states(network, batch, shared_length(batch))
        last = torch.stack([states.hidden[row, len(prompt) - states.shared - 1] for row, prompt in enumerate(batch)])
        decided += [labels[place] for place in (last.float() @ rows.T).argmax(dim=1).tolist()]
    return decided


def scores(given: list[Label], entries: list[Entry]) -> dict[str, float]:
    """Accuracy, mean recall over Hard and Soft, and the recall of each label."""
    right = [label == entry["label"] for label, entry in zip(given, entries, strict=True)]
    of_label = {label: [hit for hit, entry in zip(right, entries, strict=True) if entry["label"] == label] for label in Label}
    recall = {label: sum(hits) / max(1, len(hits)) for label, hits in of_label.items()}
    result = {
        "accuracy": sum(right) / len(right),
        "balanced_accuracy": sum(recall[label] for label in ABILITIES) / len(ABILITIES),
    }
    result |= {f"recall_{label.lower()}": recall[label] for label in Label}
    return {name: round(value, 4) for name, value in result.items()}


def evaluate(network: LlamaForCausalLM, encoder: Encoder, prompts: dict[str, Prompt], seed: int) -> dict[str, Any]:
    """On names kept out: the label under label_only, and the deciding token of Step 1 under cot."""
    network.eval()
    entries = read_entries(VALIDATION)
    entries = random.Random(seed).sample(entries, min(EVALUATED, len(entries)))
    label_only, cot = ([prompts[name].messages(entry["skill"]) for entry in entries] for name in ("label_only", "cot"))
    labels = dict(zip(Label, encoder.label_ids(label_only[0]), strict=True))
    lead = encoder.tokenizer.encode(LEAD, add_special_tokens=False)
    return {
        "names": len(entries),
        "label_only": scores(decide(network, encoder.encode(label_only), labels), entries),
        "cot": scores(decide(network, [ids + lead for ids in encoder.encode(cot)], opening_ids(encoder.tokenizer)), entries),
    }


class Drawer:
    """Draws a step's names: all labels in their proportion, without replacement within each."""

    def __init__(self, entries: list[Entry], chance: random.Random) -> None:
        self._pools = {label: draw([entry for entry in entries if entry["label"] == label], chance) for label in Label}

    def names(self, count: float) -> list[Entry]:
        """About so many names, at least one of each label."""
        sizes = {label: max(1, round(count * size / sum(MIX.values()))) for label, size in MIX.items()}
        return [next(self._pools[label]) for label, size in sizes.items() for _ in range(size)]


def train(network: LlamaForCausalLM, encoder: Encoder, prompts: dict[str, Prompt], options: argparse.Namespace) -> PeftModel:
    """Train a new adapter, logging each step; it stays in the network."""
    chance = random.Random(options.seed)
    settings: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "target_modules": LAYERS}
    adapted = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", **settings))
    adapter = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(adapter, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, options.steps))
    families, drawer = read_families(), Drawer(training_entries(), chance)
    adapted.train()
    with open(options.adapter.parent / "training.csv", "w", encoding="utf-8", newline="") as file:
        log = csv.writer(file, lineterminator="\n")
        log.writerow(COLUMNS)
        for step, name in enumerate(bar := tqdm(prompt_order(options.steps, chance), desc="train", unit="step"), start=1):
            prompt, batch = prompts[name], drawer.names(options.names * NAMES_SHARE.get(name, 1.0))
            asked = encoder.encode([prompt.messages(entry["skill"]) for entry in batch])
            wanted = [target(encoder.tokenizer, Label(one["label"]), families[one["family"]], prompt.prefill) for one in batch]
            loss, decision = batch_loss(network, asked, wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(adapter, 1.0)
            rate = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            log.writerow([step, name, len(batch), f"{loss.item():.4f}", f"{decision:.4f}", f"{rate:.4e}"])
            file.flush()
            bar.set_postfix(prompt=name, loss=f"{loss.item():.3f}", decision=f"{decision:.3f}")
            if step % SAVE_EVERY == 0 or step == options.steps:
                save_adapter(adapted, options.adapter)
    return adapted


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--names", type=int, default=NAMES, help="a step's, under the cheap prompts")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, help="of this process; torch's own choice if left out")
    parser.add_argument("--base", type=Path, default=FOLDER / "base")
    parser.add_argument("--adapter", type=Path, default=FOLDER / "adapter", help="where to save it; the logs go beside it")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    set_seed(options.seed)
    options.adapter.parent.mkdir(parents=True, exist_ok=True)
    dtype = torch.bfloat16 if has_amx() else torch.float32
    network, tokenizer = load_base(options.base, dtype)
    encoder, prompts = Encoder(tokenizer), read_prompts()
    train(network, encoder, prompts, options)

    result = {"seed": options.seed, "steps": options.steps, "names": options.names, "base": str(dtype).removeprefix("torch.")}
    result["validation"] = evaluate(network, encoder, prompts, options.seed)
    print(json.dumps(result, indent=2))
    path = options.adapter.parent / "training.json"
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    path.write_text(json.dumps([*runs, result], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run("smollm2 adapter", main)
