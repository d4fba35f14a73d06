"""What runs on a cluster's nodes: a worker with the local engine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import ray

from hardsoft.config.engines import RayEngineConfig
from hardsoft.config.machine import Machine
from hardsoft.config.schema import Config
from hardsoft.core.chat import Completion
from hardsoft.core.errors import InputError
from hardsoft.engines.base import Engine
from hardsoft.engines.local.build import local_engine
from hardsoft.engines.ray.checkpoint import Checkpoint
from hardsoft.engines.ray.cluster import other_versions
from hardsoft.engines.ray.frame import Frame

ANSWER_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("tokens", pa.int64()),
        ("probabilities", pa.list_(pa.float64())),
        ("worker", pa.string()),
    ]
)


@dataclass(frozen=True)
class Sender:
    """Who sends an answer."""

    actor: str
    """Its id in Ray, which a process that replaces another one keeps."""
    node: str
    device: str
    """Its GPU's name, or `cpu`."""
    peak_memory_mb: float
    fault: str = ""
    """Why it cannot work; its answers are none."""


class Worker:
    """The local engine in a process of the cluster."""

    def __init__(
        self, config: Config, machine: Machine, frame: Frame, checkpoint: Checkpoint | None, libraries: Mapping[str, str]
    ) -> None:
        self._frame, self._fault = frame, ""
        self._engine: Engine | None = None
        try:
            if fault := other_versions(libraries):
                raise InputError(f"this node, which joined later, has {fault}")
            self._engine = _engine(config, machine, checkpoint)
        except Exception as error:
            self._fault = _said(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Answer the chats of a table."""
        rows, answers = table["row"].to_pylist(), dict[int, Completion]()
        if self._engine:
            try:
                self._engine.complete(self._frame.unpack(table), answers.update)
            except Exception as error:
                self._fault = _said(error)
        if self._fault:
            answers = {place: Completion("", "error", 0) for place in range(len(rows))}
        return write_answers(rows, [answers[place] for place in range(len(rows))], self._sender())

    def _sender(self) -> Sender:
        here = ray.get_runtime_context()
        device, memory = (self._engine.workers[0], self._engine.peak_memory_mb) if self._engine else ("", 0.0)
        return Sender(here.get_actor_id() or "", here.get_node_id(), device, memory, self._fault)


def _engine(config: Config, machine: Machine, checkpoint: Checkpoint | None) -> Engine:
    assert isinstance(config.engine, RayEngineConfig)
    if machine.device == "cpu":
        import torch

        torch.set_num_threads(config.engine.num_cpus)
    if checkpoint:
        model = config.model.model_copy(update={"name": checkpoint.local_folder()})
        config = config.model_copy(update={"model": model})
    return local_engine(config, machine)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def write_answers(rows: Sequence[int], completions: Sequence[Completion], sender: Sender) -> pa.Table:
    """Answers as a table."""
    columns = {
        name: [getattr(completion, name) for completion in completions]
        for name in ("text", "finish_reason", "tokens", "probabilities")
    }
    return pa.table({"row": rows, **columns, "worker": [json.dumps(asdict(sender))] * len(rows)}, schema=ANSWER_SCHEMA)


def read_answers(table: pa.Table) -> tuple[list[tuple[int, Completion]], list[Sender]]:
    """Rows with their completions, and who sent them."""
    columns = [table[name].to_pylist() for name in ("row", "text", "finish_reason", "tokens", "probabilities")]
    answers = [
        (row, Completion(text, reason, tokens, tuple(given) if given else None))
        for row, text, reason, tokens, given in zip(*columns, strict=True)
    ]
    return answers, [Sender(**json.loads(sender)) for sender in table["worker"].unique().to_pylist()]
