"""Kinds of values in params.yaml, checked, and what its sections have in common. Knows no section."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic_core import PydanticCustomError


def is_path(path: str) -> str:
    """A path that is one."""
    if not path.strip() or not path.isprintable():
        raise ValueError("is no path")
    return path


def _inside_repository(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("lies outside the repository; copy the file under data/raw/ and `dvc add` it")
    return path


def inside_or_absolute(path: str) -> str:
    """A path that does not leave the repository by a relative one."""
    if ".." in Path(path).parts:
        raise ValueError("leaves the repository by a relative path; give a folder elsewhere by its absolute path")
    return path


def without_slash(path: str) -> str:
    """A path without the slash at its end."""
    return path.rstrip("/") or path


def _http_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    return url


def _without_key(url: str) -> str:
    if urlsplit(url).username is not None:
        raise PydanticCustomError("password", "holds a user name or password; a key goes into the variable of api_key_env")
    if "?" in url or "#" in url:
        raise PydanticCustomError("password", "holds a ? or #; a key goes into the variable of api_key_env")
    return url


Address = Annotated[str, AfterValidator(_http_address), AfterValidator(_without_key)]
Share = Annotated[float, Field(ge=0, le=1, strict=False)]
PositiveShare = Annotated[float, Field(gt=0, le=1, strict=False)]
Endpoint = Literal["chat", "decisions"]
"""Of a server: chat completions, or decisions, a typed choice with the probability of each label and no text."""
VariableName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
RepositoryPath = Annotated[str, AfterValidator(is_path), AfterValidator(_inside_repository)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, values are never converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AskedServer(Section):
    """An OpenAI-compatible server that is asked questions."""

    model: str
    identity: str | None
    """What tells its replies from those of other servers, whatever its address; null: the model and the address."""
    endpoint: Endpoint
    api_key_env: VariableName
    """The environment variable that holds its key; a server that wants none needs none."""
    concurrency: PositiveInt
    """Requests that are under way at once."""
    timeout_s: PositiveFloat
    """Seconds that one request may take; it is then tried again."""
    max_retries: NonNegativeInt
    max_error_share: Share
    """Of the questions, the share that may fail for good; above it the stage fails."""
