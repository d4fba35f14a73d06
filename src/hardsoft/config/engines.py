"""Section engine of params.yaml: who completes chats, one class a kind."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from hardsoft.config.fields import Address, AskedServer, Section, Share


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


class ServerEngineConfig(AskedServer):
    kind: Literal["server"]
    base_url: Address
    base_urls: list[Address]
    """Several servers of the same model, instead of base_url; empty for one."""
    parameters: dict[str, str | int | float | bool]
    """Further parameters of each request, such as a `repetition_penalty` that the server would set otherwise."""
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
