"""Everything but the question that can change an answer: the setting, the other part of a row's key. Imports no torch."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from hardsoft.config.device import dequantizes, libraries_of, rows_at_once
from hardsoft.config.schema import Config, LLMJudgeConfig, ModelConfig, ServerEngineConfig, readout_of
from hardsoft.core.files import file_hash
from hardsoft.store.rows import Setting

COMPLETION_FORMAT = 1
"""One more whenever completions stored before would be wrong answers."""
VERDICT_FORMAT = 1
"""One more whenever verdicts stored before would be wrong."""


def completion_setting(config: Config, device: str) -> Setting:
    """The setting in which a configuration completes prompts.

    Batch size is part of it only where it can change text: not in fp32, whose greedy text does not depend on it.

    Args:
        device: `cpu` or `cuda`; a server's completions do not depend on it.
    """
    kind = {"kind": "completion", "format": COMPLETION_FORMAT}
    generation = {"mode": config.prompt.mode, "max_new_tokens": config.prompt.max_new_tokens}
    if isinstance(config.engine, ServerEngineConfig):
        named = {"identity": config.engine.identity}
        unnamed = {"base_url": config.engine.base_url, "model": config.engine.model}
        server = named if config.engine.identity else unnamed
        more: Setting = {"parameters": config.engine.parameters} if config.engine.parameters else {}
        more |= {"scored": True} if config.prompt.mode == "label" else {}
        more |= {"endpoint": config.engine.endpoint} if config.engine.endpoint != "chat" else {}
        return {**kind, "generation": generation, "server": {**server, "prefill": config.engine.prefill, **more}}
    exact = config.model.dtype == "float32" and config.quantization.method == "none"
    scored = {"readout": file_hash(Path(readout))} if (readout := readout_of(config)) else {}
    return {
        **kind,
        **scored,
        "model": model_identity(config.model),
        "chat_template": config.model.chat_template,
        "dtype": config.model.dtype,
        "quantization": {**config.quantization.model_dump(), "dequantize": dequantizes(config, device)},
        "device": device,
        "batch_size": None if exact else rows_at_once(config, device),
        "generation": generation,
        "libraries": {name: version(name) for name in libraries_of(config)},
    }


def verdict_setting(judge: LLMJudgeConfig) -> Setting:
    """The setting in which a judge gives verdicts; prices, budget, concurrency, retries and batches change none."""
    address = judge.base_url or os.environ.get("OPENAI_BASE_URL")
    return {
        "kind": "verdict",
        "format": VERDICT_FORMAT,
        "judge": {"identity": judge.identity} if judge.identity else {"base_url": address, "model": judge.model},
        "reasoning_effort": judge.reasoning_effort,
        "max_completion_tokens": judge.max_completion_tokens,
        **({"endpoint": judge.endpoint} if judge.endpoint != "chat" else {}),
    }


def batch_setting(judge: LLMJudgeConfig) -> Setting:
    """The setting under which a judge's batches are remembered."""
    return {**verdict_setting(judge), "kind": "batch", "endpoint": judge.batch_endpoint}


def model_identity(model: ModelConfig) -> dict[str, str | None]:
    """A hub model's name and commit, or a folder's name and the hash of the files in it; where it lies does not count."""
    if model.source == "hub":
        return {"name": model.name, "revision": model.revision}
    combined = hashlib.sha256()
    for path in sorted(Path(model.name).glob("*")):
        if path.is_file():
            combined.update(f"{path.name} {file_hash(path)}\n".encode())
    return {"name": Path(model.name).name, "files": combined.hexdigest()}
