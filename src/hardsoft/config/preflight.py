"""What a run needs beside its files: keys and a GPU. Named before anything is loaded or paid; knows no engine and no judge."""

import os

from hardsoft.config.schema import Config, LocalEngineConfig, OpenAIJudgeConfig
from hardsoft.core.errors import InputError


def check_classify(config: Config) -> None:
    """Raise InputError naming everything that the run lacks, the judge's key too: better now than after hours of GPU work."""
    missing = []
    if isinstance(config.engine, LocalEngineConfig):
        import torch

        if config.engine.device == "cuda" and not torch.cuda.is_available():
            missing.append("a CUDA GPU (engine.device is cuda)")
        if config.model.gated and not os.environ.get("HF_TOKEN"):
            missing.append(f"HF_TOKEN in the environment ({config.model.name} is gated)")
    _raise(missing + _judges_keys(config))


def check_judge(config: Config) -> None:
    """Raise InputError naming the key that the judge lacks."""
    _raise(_judges_keys(config))


def _judges_keys(config: Config) -> list[str]:
    if isinstance(config.judge, OpenAIJudgeConfig) and not os.environ.get("OPENAI_API_KEY"):
        return [f"OPENAI_API_KEY in the environment (the judge is {config.judge.model})"]
    return []


def _raise(missing: list[str]) -> None:
    if missing:
        raise InputError(f"missing: {'; '.join(missing)}")
