"""What Ray costs: its workers beside the local engine's processes, and how many rows a second its driver moves.

Labels are scored (`prompt=label_only`) on Ray on this machine, each time by a process of its own, from opening the engine to the
last row in the store. Starting is told apart by doing it twice, with a tenth of the rows too: the rate is that of the others.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from hardsoft.config.compose import configuration
from hardsoft.config.machine import machine_on
from hardsoft.config.schema import Config
from hardsoft.core.chat import Completion
from hardsoft.core.files import to_json
from hardsoft.engines.base import Engine
from hardsoft.engines.ray.engine import ray_engine
from hardsoft.engines.ray.frame import Frame
from hardsoft.engines.ray.worker import Sender, write_answers
from hardsoft.engines.start import open_engine
from hardsoft.prompting.prompts import read_prompt
from hardsoft.store.key import completion_setting
from hardsoft.store.lookup import StoredRows
from hardsoft.store.rows import Store, canonical

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers have no benchmarks
VARIANTS = {
    "engine=local, 2 processes": ["engine=local", "engine.device=cpu", "engine.processes=2"],
    "engine=ray, 1 worker": ["engine=ray", "engine.workers=1"],
    "engine=ray, 2 workers": ["engine=ray", "engine.workers=2"],
}
SMOLLM2 = "models/smollm2/checkpoint"


class Nothing:
    """A worker that unpacks its questions and labels them all alike."""

    def __init__(self, frame: Frame, **_: object) -> None:
        self._frame = frame

    def __call__(self, table: pa.Table) -> pa.Table:
        answers = [Completion("Answer: Hard", "stop", 0, (0.9, 0.06, 0.04)) for _ in self._frame.unpack(table)]
        here = ray.get_runtime_context()
        return write_answers(table["row"].to_pylist(), answers, Sender(here.get_actor_id() or "", here.get_node_id(), "cpu", 1.0))


def measure(overrides: Sequence[str], count: int, nothing: bool = False) -> dict[str, float]:
    """Seconds and this process's peak MB for so many synthetic skills in an empty store."""
    config: Config = configuration("prompt=label_only", *overrides)
    prompt = read_prompt(config.prompt)
    skills = [f"Synthetic Skill {number} Of Trade {number % 997}" for number in range(count)]

    machine = machine_on(config, "cpu")
    opened: AbstractContextManager[Engine] = (
        ray_engine(config, machine, count, Nothing) if nothing else open_engine(config, machine, count)
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        store = Store(Path(folder, "rows.sqlite"))
        questions = (canonical(prompt.messages(skill)) for skill in skills)
        stored = StoredRows(store, completion_setting(config, machine), questions)
        with stored.to_ask() as rows, opened as engine:
            engine.complete(
                (prompt.messages(skills[row]) for row in rows),
                lambda results: stored.keep([(rows[place], asdict(completion)) for place, completion in results]),
            )
        seconds = time.perf_counter() - begin
        assert all(value is not None for value in stored.read())
    kilobyte = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte / 1e6
    return {"seconds": seconds, "peak_mb": peak}


def rate(name: str, overrides: Sequence[str], count: int, nothing: bool = False) -> dict[str, float]:
    """What so many rows cost beside a tenth of them."""
    costs = []
    for rows in (count // 10, count):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            costs.append(process.submit(measure, overrides, rows, nothing).result())
    few, many = costs
    figures = {
        "rows": count,
        "rows_per_second": round((count - count // 10) / (many["seconds"] - few["seconds"]), 1),
        "seconds": round(many["seconds"], 1),
        "seconds_for_a_tenth": round(few["seconds"], 1),
        "peak_mb": round(many["peak_mb"]),
    }
    print(name, figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--tiny", type=int, default=20_000, help="rows for the tiny model")
    parser.add_argument("--smollm2", type=int, default=1_500, help="rows for smollm2")
    parser.add_argument("--nothing", type=int, default=1_000_000, help="rows for workers that do nothing")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for model, count in (("tiny", arguments.tiny), ("smollm2", arguments.smollm2 if Path(SMOLLM2).exists() else 0)):
        for name, overrides in VARIANTS.items() if count else ():
            figures[f"{model}, {name}"] = rate(f"{model}, {name}", [f"model={model}", *overrides], count)
    name = "2 workers that do nothing"
    figures[name] = rate(name, ["model=tiny", "engine=ray", "engine.workers=2"], arguments.nothing, nothing=True)
    if arguments.json:
        Path(arguments.json).write_text(to_json(figures), encoding="utf-8")


if __name__ == "__main__":
    main()
