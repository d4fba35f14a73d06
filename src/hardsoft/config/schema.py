"""What params.yaml may hold: the keys that stages read, checked. Knows nothing of conf/ and Hydra."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from hardsoft.config.engines import EngineConfig, RayEngineConfig
from hardsoft.config.fields import RepositoryPath, Section, Share, inside_or_absolute, is_path, without_slash
from hardsoft.config.judges import JudgeConfig
from hardsoft.config.samples import SampleConfig
from hardsoft.core.paths import CODEBOOK


class Columns(Section):
    candidate: str
    skill: str
    type: str


class DataConfig(Section):
    path: RepositoryPath
    separator: str = Field(min_length=1, max_length=1)
    columns: Columns
    skill_type: str
    null_values: list[str]
    reference: RepositoryPath


class ModelConfig(Section):
    source: Literal["folder", "hub"]
    """Where the model is: a checkpoint folder on this disk, or the Hugging Face hub."""
    name: Annotated[str, AfterValidator(is_path), AfterValidator(without_slash)]
    """The folder's path, in the repository or absolute, or the model's id on the hub."""
    revision: str | None
    """The commit of a hub model; null for a folder."""
    gated: bool
    parameters: PositiveInt
    """Of the model, roughly: what `quantization.dequantize: auto` goes by."""
    chat_template: dict[str, str | int | float | bool]
    """Arguments of the chat template, such as `enable_thinking: false` or a `date_string`."""
    dtype: Literal["float32", "float16", "bfloat16"]
    """Of the weights that are not quantised, and of the computation."""
    dep: Annotated[str, AfterValidator(without_slash), AfterValidator(inside_or_absolute)]
    """What the classify stage depends on: the checkpoint folder, or the option file of a hub model."""
    readout: RepositoryPath
    """A read-out that labels in `mode: label`, see `python -m hardsoft.readout`; NO_READOUT for the label words' own."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.source == "folder" and self.dep != self.name:
            raise ValueError(f"of a checkpoint folder, model.name and model.dep are the same path; set model.dep={self.name}")
        if self.source == "hub" and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision must pin a commit of {self.name}, 40 hexadecimal digits: branches move")
        return self


class QuantizationConfig(Section):
    method: Literal["none", "nf4", "fp4", "int8"]
    double_quant: bool
    dequantize: bool | Literal["auto"]
    """Whether to turn 4-bit weights back into `model.dtype` once after loading, with the values that 4 bits left them."""

    @model_validator(mode="after")
    def _four_bits(self) -> Self:
        if self.dequantize and self.method not in ("nf4", "fp4"):
            raise ValueError(f"dequantize is for nf4 and fp4; with {self.method} it must be false")
        return self


class PromptConfig(Section):
    mode: Literal["reason", "label"]
    """Generate reasoning and the answer, or score the three labels in one forward pass."""
    template: RepositoryPath
    codebook: bool = False
    """Whether the template is given the codebook's text."""
    dep: RepositoryPath
    """A second file that classify depends on: the codebook where it is used, else the option's own file."""
    system: str
    prefill: str
    """How the assistant's turn begins; empty to leave that to the model."""
    max_new_tokens: PositiveInt
    contextual_calibration: bool = False
    """In label mode, divide the probabilities by those for inputs without content."""

    @model_validator(mode="after")
    def _depends_on_the_codebook(self) -> Self:
        if self.codebook != (self.dep == CODEBOOK):
            raise ValueError(f"with codebook: true, and only then, dep must be {CODEBOOK}")
        return self


class CleanConfig(Section):
    abstain_below: Share | None
    """A label whose probability is below this becomes Unknown, with the outcome `abstained`; null asks for no confidence."""


class MetricsConfig(Section):
    confidence: float = Field(gt=0, lt=1)


class Config(Section):
    """The whole of params.yaml."""

    data: DataConfig
    model: ModelConfig
    quantization: QuantizationConfig
    prompt: PromptConfig
    engine: EngineConfig
    clean: CleanConfig
    sample: SampleConfig
    judge: JudgeConfig
    metrics: MetricsConfig

    @model_validator(mode="after")
    def _known_without_a_cluster(self) -> Self:
        if isinstance(self.engine, RayEngineConfig) and self.engine.num_gpus and self.quantization.dequantize == "auto":
            raise ValueError(
                "with engine.num_gpus, set quantization.dequantize to true or false: whether the workers' GPUs have room for "
                "it cannot be told from here"
            )
        return self
