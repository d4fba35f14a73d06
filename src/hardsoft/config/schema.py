"""What params.yaml may hold: the keys that stages read, checked. Knows nothing of conf/ and Hydra."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from yaml import YAMLError

from hardsoft.core.errors import InputError
from hardsoft.core.files import read_text
from hardsoft.core.paths import CODEBOOK, LABELS

PARAMS = "params.yaml"
UNREADABLE = (ValueError, KeyError, AttributeError, AssertionError, RecursionError, OSError)
"""What YAML's and OmegaConf's readers raise, beside their own errors, at files that hold something else."""


def _is_path(path: str) -> str:
    if not path.strip() or not path.isprintable():
        raise ValueError("is no path")
    return path


def _inside_repository(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("lies outside the repository; copy the file under data/raw/ and `dvc add` it")
    return path


def _inside_or_absolute(path: str) -> str:
    if ".." in Path(path).parts:
        raise ValueError("leaves the repository by a relative path; give a folder elsewhere by its absolute path")
    return path


def _without_slash(path: str) -> str:
    return path.rstrip("/") or path


def _http_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def _without_password(url: str) -> str:
    if urlsplit(url).username is not None:
        raise PydanticCustomError("password", "holds a user name or password; a key goes into the variable of api_key_env")
    return url


Address = Annotated[str, AfterValidator(_http_address), AfterValidator(_without_password)]
Share = Annotated[float, Field(ge=0, le=1, strict=False)]
PositiveShare = Annotated[float, Field(gt=0, le=1, strict=False)]
Endpoint = Literal["chat", "decisions"]
"""Of a server: chat completions, or decisions, a typed choice with the probability of each label and no text."""
VariableName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
RepositoryPath = Annotated[str, AfterValidator(_is_path), AfterValidator(_inside_repository)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, values are never converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    name: Annotated[str, AfterValidator(_is_path), AfterValidator(_without_slash)]
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
    dep: Annotated[str, AfterValidator(_without_slash), AfterValidator(_inside_or_absolute)]
    """What the classify stage depends on: the checkpoint folder, or the option file of a hub model."""
    readout: RepositoryPath | None
    """A read-out that labels in `mode: label`, see `python -m hardsoft.readout`; null for the label words' own probabilities."""
    readout_dep: Annotated[str, AfterValidator(_without_slash), AfterValidator(_inside_or_absolute)] | None
    """The read-out, or where there is none, `dep` again: a stage's dependency cannot be null."""

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.source == "folder" and self.dep != self.name:
            raise ValueError(f"of a checkpoint folder, model.name and model.dep are the same path; set model.dep={self.name}")
        if self.source == "hub" and not re.fullmatch("[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision must pin a commit of {self.name}, 40 hexadecimal digits: branches move")
        if self.readout_dep != (self.readout or self.dep):
            raise ValueError(f"set model.readout_dep={self.readout or self.dep}, what model.readout says")
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


class LocalEngineConfig(Section):
    kind: Literal["local"]
    batch_size: PositiveInt | Literal["auto"]
    """Rows that decode at once, in each process; auto goes by the device's memory."""
    device: Literal["auto", "cpu", "cuda"]
    processes: PositiveInt | Literal["auto"]
    """On a CPU one thread each, auto being one per physical core; on GPUs one GPU each, auto being all of the machine."""
    graphs: Literal["auto", False] = "auto"
    """Whether a GPU's steps are captured in CUDA graphs: auto does what can be captured; false is the way out."""
    max_error_share: Share
    """Of the rows, the share that may fail for good; above it the stage fails."""


class RayEngineConfig(Section):
    kind: Literal["ray"]
    address: str | None
    """Of a Ray cluster that this machine belongs to, `auto` or `host:6379`; null starts Ray on this machine."""
    workers: PositiveInt | Literal["auto"] | list[PositiveInt]
    """Processes, each with the model; auto is as many as the cluster has room for, a pair the fewest and the most."""
    num_cpus: PositiveInt
    """CPUs of each worker, and its threads."""
    num_gpus: Annotated[float, Field(ge=0, strict=False)]
    """GPUs of each worker, which computes on its GPU if there is any."""
    batch_size: PositiveInt | Literal["auto"]
    """Rows that decode at once, in each worker."""
    graphs: Literal["auto", False] = "auto"
    """See `LocalEngineConfig.graphs`."""
    max_error_share: Share
    """Of the rows, the share that may fail for good; above it the stage fails."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.address not in (None, "auto") and not re.fullmatch(r"[^/\s]+:\d+", str(self.address)):
            raise ValueError(f"address must be auto, host:port or null (it is {self.address!r})")
        if isinstance(self.workers, list) and (len(self.workers) != 2 or self.workers[0] > self.workers[1]):
            raise ValueError("workers must be a number, auto, or [fewest, most]")
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus must be a share of one GPU, or a whole number (it is {self.num_gpus:g})")
        if self.num_gpus and self.batch_size == "auto":
            raise ValueError("with num_gpus, set batch_size to a number: what fits on the workers' GPUs cannot be told from here")
        return self


class ServerEngineConfig(Section):
    kind: Literal["server"]
    base_url: Address
    base_urls: list[Address]
    """Several servers of the same model, instead of base_url; empty for one."""
    model: str
    identity: str | None
    """What tells its completions from those of other servers, whatever its address; null: the model and the address."""
    endpoint: Endpoint
    parameters: dict[str, str | int | float | bool]
    """Further parameters of each request, such as a `repetition_penalty` that the server would set otherwise."""
    api_key_env: VariableName
    """The environment variable that holds its key; a server that wants none needs none."""
    concurrency: PositiveInt
    timeout_s: PositiveFloat
    """Seconds that one request may take; it is then tried again."""
    max_retries: NonNegativeInt
    max_error_share: Share
    """Of the rows, the share that may fail for good; above it the stage fails."""
    prefill: bool
    """Whether the server can go on from `prompt.prefill`; if not, it is left out."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.base_urls and not self.identity:
            raise ValueError("with base_urls, engine.identity must name what answers at all of them")
        return self

    def addresses(self) -> list[str]:
        """Where its servers are."""
        return list(dict.fromkeys(self.base_urls)) or [self.base_url]


ModelEngineConfig = LocalEngineConfig | RayEngineConfig
"""Of the engines that load the model themselves."""
EngineConfig = Annotated[LocalEngineConfig | RayEngineConfig | ServerEngineConfig, Field(discriminator="kind")]


class PerLabelSampleConfig(Section):
    kind: Literal["per_label"]
    per_label: PositiveInt
    """Skills of each label, on average."""
    allocation: Literal["equal", "neyman"]
    """As many of each label, or as many as make the population's accuracy most certain."""
    expected_precision: dict[Literal["Hard", "Soft"], Share]
    """What `neyman` goes by."""
    seed: int
    dep: RepositoryPath
    """What the stage depends on beside the labels; of this kind, the labels again."""


class FrozenSampleConfig(Section):
    kind: Literal["frozen"]
    fraction: PositiveShare
    """Of the skills, and of those that the baseline does not have."""
    baseline: RepositoryPath | None
    """A variant's labels.csv whose labels the fractions go by; null for one fraction of all."""
    fractions: dict[Literal["Hard", "Soft", "Unknown"], PositiveShare]
    """Of the skills with each of the baseline's labels; `fraction` where one is left out."""
    seed: int
    dep: RepositoryPath
    """The baseline, or where there is none, the labels again."""

    @model_validator(mode="after")
    def _depends_on_the_baseline(self) -> Self:
        if self.dep != (self.baseline or LABELS):
            raise ValueError(f"sample.dep must be {self.baseline or LABELS}, what sample.baseline says")
        return self


class AllSampleConfig(Section):
    kind: Literal["all"]
    dep: RepositoryPath


class ByMentionSampleConfig(Section):
    kind: Literal["by_mention"]
    n: PositiveInt
    """Skills to draw, each with a probability proportional to how many candidates mention it."""
    seed: int
    dep: RepositoryPath


SampleConfig = Annotated[
    PerLabelSampleConfig | FrozenSampleConfig | AllSampleConfig | ByMentionSampleConfig, Field(discriminator="kind")
]


class ReferenceJudgeConfig(Section):
    kind: Literal["reference"]


class ModelPrice(Section):
    """US dollars per million tokens."""

    model: str
    input: NonNegativeFloat
    cached_input: NonNegativeFloat
    """Of input that the provider has read shortly before."""
    output: NonNegativeFloat
    """Reasoning included."""


class PricesConfig(Section):
    date: str
    """When they were read off the provider's page."""
    batch_share: float = Field(gt=0, le=1)
    """Of the price, what a verdict costs through the Batch API."""
    models: list[ModelPrice]


class LLMJudgeConfig(Section):
    kind: Literal["llm"]
    base_url: Address | None
    """Null is OpenAI itself, or OPENAI_BASE_URL in the environment."""
    model: str
    identity: str | None
    """What tells its verdicts from those of other judges, whatever its address; null: the model and the address."""
    api_key_env: VariableName
    """The environment variable that holds its key."""
    endpoint: Endpoint
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    """Null leaves it to the model, and is right for models that do not reason."""
    max_completion_tokens: PositiveInt
    blind: bool
    """False shows the judge the label that it checks, to measure how much that sways it."""
    concurrency: PositiveInt
    timeout_s: PositiveFloat
    """Seconds that one request may take; it is then tried again."""
    max_retries: NonNegativeInt
    max_error_share: Share
    """Of the skills, the share that may fail for good; above it the stage fails."""
    budget_usd: NonNegativeFloat | None
    """US dollars that one run may cost by its plan; null sets no limit."""
    expected_output_tokens: PositiveInt
    """Tokens of a verdict, reasoning included, by which the plan reckons."""
    prices: PricesConfig
    repeats: PositiveInt
    """So often each skill is asked about; the majority counts."""
    batch: bool
    """Ask through the Batch API: for `prices.batch_share` of the price, within a day."""
    batch_endpoint: Literal["/v1/chat/completions", "/v1/responses"]
    """Which of the provider's endpoints a batch is for."""
    batch_poll_s: PositiveFloat
    """Seconds between two looks at a batch."""

    @model_validator(mode="after")
    def _one_by_one(self) -> Self:
        if self.batch and self.endpoint == "decisions":
            raise ValueError("batch: decisions are not made in batches; set judge.batch=false")
        return self

    def price(self) -> ModelPrice | None:
        """The model's price, if it is listed and the address is the provider's."""
        return next((price for price in self.prices.models if price.model == self.model), None) if not self.base_url else None


class PanelJudgeConfig(Section):
    kind: Literal["panel"]
    judges: dict[str, LLMJudgeConfig] = Field(min_length=1)
    """By the name that verdicts carry; the majority counts."""


JudgeConfig = Annotated[ReferenceJudgeConfig | LLMJudgeConfig | PanelJudgeConfig, Field(discriminator="kind")]


def language_judges(judge: JudgeConfig) -> dict[str, LLMJudgeConfig]:
    """The language models that judge, by name; none where the judge is the reference."""
    if isinstance(judge, PanelJudgeConfig):
        return judge.judges
    return {judge.model: judge} if isinstance(judge, LLMJudgeConfig) else {}


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


def load_config(path: str = PARAMS) -> Config:
    """Read and validate a params file.

    Raises:
        InputError: the file is missing, or a key is unknown, missing, left at `???` or of a wrong type.
    """
    if not Path(path).exists():
        raise InputError(f"{path}: no such file; write it with `python -m hardsoft.config`")
    return validate(load_yaml(path), path)


def load_yaml(path: str) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        InputError: it is no valid YAML in UTF-8, names a key twice, or holds something else than keys.
    """
    text = read_text(path)
    try:
        loaded = OmegaConf.create(text)
    except (YAMLError, OmegaConfBaseException, *UNREADABLE) as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: {_line_of(error, text)}not valid YAML: {problem}") from None
    if not OmegaConf.is_dict(loaded):
        raise InputError(f"{path}: expected keys and values, found something else")
    try:
        values: dict[str, Any] = OmegaConf.to_container(loaded, resolve=path == PARAMS)  # type: ignore[assignment]
    except (OmegaConfBaseException, *UNREADABLE) as error:
        raise InputError(f"{path}: {str(error).partition(chr(10))[0]}") from None
    return values


def _line_of(error: Exception, text: str) -> str:
    """Where a YAML fault is: where what was not ended began, else where it was noticed."""
    position = getattr(error, "position", None)
    if isinstance(position, int):
        return f"line {text.count(chr(10), 0, position) + 1}: "
    begun = any(word in (getattr(error, "context", None) or "") for word in ("scanning", "flow"))
    mark = (begun and getattr(error, "context_mark", None)) or getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: " if mark else ""


def validate(values: Any, path: str) -> Config:
    """Check composed values against `Config`; errors name the file, the key and what would be right."""
    try:
        return TypeAdapter(Config).validate_python(values)
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise InputError(f"{path}: {'; '.join(problems)}") from None


def _describe(problem: Any) -> str:
    where = [str(part) for part in problem["loc"]]
    if where[:1] and where[0] in ("engine", "judge", "sample"):
        del where[1:2]  # which of the kinds of this section it was checked against
    if problem["type"] != "extra_forbidden":
        fields = {name for section in Section.__subclasses__() for name in section.model_fields}
        where = [part for part in where if part in fields]  # without the types of a union that were tried
    key = ".".join(where)
    if problem["input"] == "???":
        return f"{key}: needs a value (it is left at ???)"
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    given = "" if isinstance(problem["input"], dict) or problem["type"] == "password" else f" (it is {problem['input']!r})"
    message = f"{problem['msg'].removeprefix('Value error, ')}{given}"
    return f"{key}: {message}" if key else message
