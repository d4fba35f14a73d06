"""Everything but the question that can change an answer: the setting, the other part of a row's key. Imports no torch.

Each field of every section that can reach a row is in one of two sets, `COUNTS` and `HARMLESS`; a test sees to it.
"""

import os
from importlib.metadata import version
from pathlib import Path

from hardsoft.config.engines import LocalEngineConfig, RayEngineConfig, ServerEngineConfig
from hardsoft.config.fields import Section
from hardsoft.config.judges import LLMJudgeConfig
from hardsoft.config.machine import Machine, libraries_of, readout_of
from hardsoft.config.schema import Config, ModelConfig, PromptConfig, QuantizationConfig
from hardsoft.core.checkpoints import files_hash
from hardsoft.core.files import file_hash
from hardsoft.store.rows import Setting

COMPLETION_FORMAT = 1
"""One more whenever completions stored before would be wrong answers."""
VERDICT_FORMAT = 1
"""One more whenever verdicts stored before would be wrong."""

COUNTS: dict[type[Section], set[str]] = {
    ModelConfig: {"source", "name", "revision", "chat_template", "dtype", "readout"},
    QuantizationConfig: {"method", "double_quant", "dequantize"},
    PromptConfig: {"mode", "max_new_tokens"},
    LocalEngineConfig: {"batch_size", "device"},
    RayEngineConfig: {"batch_size", "num_gpus"},
    ServerEngineConfig: {"kind", "base_url", "model", "identity", "endpoint", "parameters", "prefill"},
    LLMJudgeConfig: {"base_url", "model", "identity", "endpoint", "reasoning_effort", "max_completion_tokens"},
}
"""What is part of a setting. A field with a default is newer than the format: it enters where it differs from that."""
HARMLESS: dict[type[Section], set[str]] = {
    ModelConfig: {"gated", "parameters", "dep"},
    QuantizationConfig: set(),
    PromptConfig: {"template", "codebook", "dep", "system", "prefill", "contextual_calibration"},
    LocalEngineConfig: {"kind", "processes", "graphs", "max_error_share"},
    RayEngineConfig: {"kind", "address", "workers", "num_cpus", "graphs", "max_error_share"},
    ServerEngineConfig: {"base_urls", "api_key_env", "concurrency", "timeout_s", "max_retries", "max_error_share"},
    LLMJudgeConfig: {
        *("kind", "api_key_env", "blind", "concurrency", "timeout_s", "max_retries", "max_error_share", "budget_usd"),
        *("expected_output_tokens", "prices", "repeats", "batch", "batch_endpoint", "batch_poll_s", "resubmit"),
    },
}
"""What is not: it changes no answer, or only by what `Machine` says, or the question shows it, or it is applied to the answer."""


def completion_setting(config: Config, machine: Machine) -> Setting:
    """The setting in which a configuration completes prompts.

    Batch size is part of it only where it can change text: not in fp32, whose greedy text does not depend on it.

    Args:
        machine: what `auto` means; a server's completions do not depend on it.
    """
    kind = {"kind": "completion", "format": COMPLETION_FORMAT}
    generation = {"mode": config.prompt.mode, "max_new_tokens": config.prompt.max_new_tokens}
    newer = _newer(config.prompt) | _newer(config.engine)
    if isinstance(config.engine, ServerEngineConfig):
        named = {"identity": config.engine.identity}
        unnamed = {"base_url": config.engine.base_url, "model": config.engine.model}
        server = named if config.engine.identity else unnamed
        more: Setting = {"parameters": config.engine.parameters} if config.engine.parameters else {}
        more |= {"scored": 2 if config.engine.endpoint == "chat" else True} if config.prompt.mode == "label" else {}
        more |= {"endpoint": config.engine.endpoint} if config.engine.endpoint != "chat" else {}
        return {**kind, **newer, "generation": generation, "server": {**server, "prefill": config.engine.prefill, **more}}
    exact = config.model.dtype == "float32" and config.quantization.method == "none"
    scored = {"readout": file_hash(Path(readout))} if (readout := readout_of(config)) else {}
    return {
        **kind,
        **newer,
        **_newer(config.model),
        **_newer(config.quantization),
        **scored,
        "model": model_identity(config.model),
        "chat_template": config.model.chat_template,
        "dtype": config.model.dtype,
        "quantization": {
            "method": config.quantization.method,
            "double_quant": config.quantization.double_quant,
            "dequantize": machine.dequantize,
        },
        "device": machine.device,
        "batch_size": None if exact else machine.rows_at_once,
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
        **_newer(judge),
    }


def batch_setting(judge: LLMJudgeConfig) -> Setting:
    """The setting under which a judge's batches are remembered."""
    return {**verdict_setting(judge), "kind": "batch", "endpoint": judge.batch_endpoint}


def model_identity(model: ModelConfig) -> dict[str, str | None]:
    """A hub model's name and commit, or a folder's name and the hash of the files in it; where it lies does not count."""
    if model.source == "hub":
        return {"name": model.name, "revision": model.revision}
    return {"name": Path(model.name).name, "files": files_hash(model.name)}


def _newer(section: Section) -> Setting:
    """The fields of a section that count and have a default, where they differ from it, so that stored rows keep their keys."""
    newer = {name: field for name, field in type(section).model_fields.items() if not field.is_required()}
    differing = {name for name in COUNTS[type(section)] & set(newer) if getattr(section, name) != newer[name].get_default()}
    return section.model_dump(mode="json", include=differing)
