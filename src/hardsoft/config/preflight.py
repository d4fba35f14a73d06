"""What a run needs beside its files: keys and a GPU. Named before anything is loaded or paid; knows no engine and no judge."""

import os
from collections.abc import Mapping

from hardsoft.config.engines import LocalEngineConfig, ModelEngineConfig, ServerEngineConfig
from hardsoft.config.judges import LLMJudgeConfig, language_judges
from hardsoft.config.schema import Config
from hardsoft.core.errors import InputError


def check_classify(config: Config) -> None:
    """Raise InputError naming everything that the run lacks, the judge's key too: better now than after hours of GPU work."""
    missing = []
    if isinstance(config.engine, ServerEngineConfig):
        read_key(config.engine.api_key_env)
    if isinstance(config.engine, LocalEngineConfig) and config.engine.device == "cuda" and not _has_gpu():
        missing.append("a CUDA GPU (engine.device is cuda)")
    if isinstance(config.engine, ModelEngineConfig) and config.model.gated and not _hub_token():
        missing.append(f"HF_TOKEN in the environment, or `hf auth login` ({config.model.name} is gated)")
    _raise(missing + _judges_keys(language_judges(config.judge)))


def check_judge(judges: Mapping[str, LLMJudgeConfig]) -> None:
    """Raise InputError naming the keys that judges lack."""
    _raise(_judges_keys(judges))


def read_key(variable: str) -> str:
    """The key that an environment variable holds, without the blanks around it; empty if there is none.

    Raises:
        InputError: it holds a character that no HTTP header can carry.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise InputError(f"{variable} contains a blank, a line end or another character that no header can carry; set it anew")
    return key


def _judges_keys(judges: Mapping[str, LLMJudgeConfig]) -> list[str]:
    return [
        f"{judge.api_key_env} in the environment (the judge is {judge.model})"
        for judge in judges.values()
        if not read_key(judge.api_key_env) and judge.base_url is None
    ]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _hub_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _raise(missing: list[str]) -> None:
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}")
