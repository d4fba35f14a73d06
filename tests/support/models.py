"""The committed checkpoint, loaded once a process and way of quantising, and what it is asked."""

import csv
from functools import cache
from typing import Literal

import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hardsoft.config.schema import ModelConfig, PromptConfig, QuantizationConfig
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.paths import NO_READOUT
from hardsoft.engines.local.engine import LocalEngine
from hardsoft.engines.local.loading import load
from hardsoft.engines.local.tokens import Encoder
from hardsoft.prompting.prompts import Prompt, read_prompt
from tests.support.repositories import CHECKPOINT, ROOT

MODEL = ModelConfig(
    source="folder",
    name=CHECKPOINT,
    revision=None,
    gated=False,
    parameters=1722048,
    chat_template={},
    dtype="float32",
    dep=CHECKPOINT,
    readout=NO_READOUT,
)

Method = Literal["none", "nf4", "fp4", "int8"]


@cache
def loaded(method: Method, dequantize: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    double_quant = method in ("nf4", "fp4")
    return load(MODEL, QuantizationConfig(method=method, double_quant=double_quant, dequantize=dequantize), "cpu")


def model(method: Method = "none", dequantize: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    return loaded(method, dequantize)


@cache
def option(name: str) -> PromptConfig:
    return PromptConfig(**yaml.safe_load((ROOT / f"conf/prompt/{name}.yaml").read_text(encoding="utf-8")))


def prompt(name: str) -> Prompt:
    return read_prompt(option(name))


@cache
def reference() -> list[dict[str, str]]:
    with open(ROOT / "data/reference/labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def some_skills(step: int) -> list[str]:
    return [row["skill"] for row in reference()[::step]]


def chats(skills: list[str], name: str = "cot") -> list[Chat]:
    return [prompt(name).messages(skill) for skill in skills]


def complete(
    skills: list[str], name: str = "cot", method: Method = "none", batch_size: int = 64, max_new_tokens: int = 60
) -> list[Completion]:
    completions: dict[int, Completion] = {}
    network, tokenizer = model(method)
    engine = LocalEngine(network, Encoder(tokenizer), batch_size, max_new_tokens, scoring=option(name).mode == "label")
    engine.complete(chats(skills, name), completions.update)
    return [completions[row] for row in range(len(skills))]


def text(completion: Completion) -> tuple[str, str, int]:
    return completion.text, completion.finish_reason, completion.tokens
