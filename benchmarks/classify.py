"""How much faster the classify stage's engine is than the notebook study's loop, on the same rows and weights.

Methods alternate within each round, so that a machine's moods meet all of them; a ratio is the median over the rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from omegaconf import OmegaConf

from benchmarks.lengths import study_length
from hardsoft.config.compose import compose
from hardsoft.config.engines import LocalEngineConfig
from hardsoft.config.load import validate
from hardsoft.config.machine import Machine, machine_on
from hardsoft.config.schema import Config
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.files import to_json
from hardsoft.engines.base import Engine, OnResults
from hardsoft.engines.local.build import local_engine
from hardsoft.engines.local.drafts import LONGEST_DRAFT
from hardsoft.engines.pool import Pool
from hardsoft.engines.shares import physical_cores, rows_in_a_share
from hardsoft.engines.stored import complete
from hardsoft.prompting.answers import read_answer
from hardsoft.prompting.prompts import read_prompt
from hardsoft.store.key import completion_setting
from hardsoft.store.rows import Store, canonical, make_keys


def configuration(*overrides: str) -> Config:
    """The default configuration with overrides, on a CPU."""
    text = compose(["engine.device=cpu", *overrides])
    return validate(OmegaConf.to_container(OmegaConf.create(text)), "conf/")


class ForcedLengthEngine:
    """The engine's loop, with completions of the study's lengths instead of the model's own."""

    peak_memory_mb = 0.0
    workers: ClassVar = ["cpu"]

    def __init__(self, network: Any, tokenizer: Any, batch_size: int, window: int) -> None:
        self._network, self._tokenizer, self._batch_size, self._window = network, tokenizer, batch_size, window

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        from hardsoft.engines.local.drafts import Drafts
        from hardsoft.engines.local.eager import Eager
        from hardsoft.engines.local.loop import decode
        from hardsoft.engines.local.rows import Generated, Job
        from hardsoft.engines.local.tokens import Encoder

        some = list(chats)
        if not some:
            return
        lengths = [study_length(chat) for chat in some]
        prompts = enumerate(Encoder(self._tokenizer).encode(some))

        def stop(row: Generated) -> bool:
            return len(row.tokens) == lengths[row.row]

        job = Job(self._batch_size, max(lengths), stop, window=self._window)
        for finished in decode(self._network, prompts, job, partial(Eager, drafts=Drafts())):
            on_results([(row.row, Completion(self._tokenizer.decode(row.tokens), "stop", len(row.tokens))) for row in finished])


def forced_length_engine(config: Config, machine: Machine, window: int) -> Engine:
    """Made where it runs, like any engine of a pool."""
    from hardsoft.engines.local.loading import load
    from hardsoft.engines.local.packing import pack_linears

    assert isinstance(config.engine, LocalEngineConfig)
    network, tokenizer = load(config.model, config.quantization, "cpu")
    pack_linears(network)
    return ForcedLengthEngine(network, tokenizer, machine.batch_size, window)


class Notebook:
    """The notebook's loop as an engine."""

    peak_memory_mb = 0.0
    workers: ClassVar = ["cpu"]

    def __init__(self, network: Any, tokenizer: Any, lengths: Callable[[Chat], int] | None = None) -> None:
        self._network, self._tokenizer, self._lengths = network, tokenizer, lengths

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        from benchmarks import notebook

        for row, text in enumerate(notebook.complete(self._network, self._tokenizer, list(chats), self._lengths)):
            on_results([(row, Completion(text, "stop", 0))])


def open_pool(config: Config, make: Callable[[Machine, int], Engine], rows: int, processes: int) -> Pool:
    """A process per core, each with one thread, as `open_engine` opens them."""
    machine = machine_on(config, "cpu")
    share = rows_in_a_share(config, machine, rows, processes)
    return Pool([partial(make, machine, share)] * processes, share, threads=1)


def timed(engine: Engine, chats: Sequence[Chat]) -> tuple[float, dict[int, Completion]]:
    """Rows per second over at least two seconds, as often as that takes, and the completions."""
    results: dict[int, Completion] = {}
    begin, times, seconds = time.perf_counter(), 0, 0.0
    while seconds < 2:
        engine.complete(chats, results.update)
        times, seconds = times + 1, time.perf_counter() - begin
    return times * len(chats) / seconds, results


def compare(engines: dict[str, tuple[Engine, Sequence[Chat]]], rounds: int) -> dict[str, list[float]]:
    """Rows per second of each engine in each round, after a warm-up."""
    for engine, chats in engines.values():
        timed(engine, chats[:128])
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, (engine, chats) in engines.items():
            rates[name].append(timed(engine, chats)[0])
    return rates


def median_ratio(rates: dict[str, list[float]], name: str, baseline: str) -> float:
    """The median over the rounds of one engine's rate over another's."""
    return statistics.median(ours / theirs for ours, theirs in zip(rates[name], rates[baseline], strict=True))


def label_agreement(theirs: dict[int, Completion], ours: dict[int, Completion]) -> tuple[float, int]:
    """Of the rows where both methods read a label, the share with the same; and how many these are."""
    from benchmarks.notebook import last_word

    labels = [(last_word(theirs[row].text), read_answer(ours[row].text, ours[row].finish_reason)) for row in ours]
    both = [(label, reading.label) for label, reading in labels if label is not None and reading.answer]
    return sum(label == reading for label, reading in both) / len(both), len(both)


def useful_share(network: Any, engine: Engine, chats: Sequence[Chat], useful: int) -> float:
    """Of the tokens that a network decodes for an engine, the share that ends up in completions, `useful` in number."""
    decoded = 0

    def count(_: Any, positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal decoded
        ids = keywords["input_ids"] if "input_ids" in keywords else positional[0]
        decoded += ids.numel() if ids.shape[1] <= 1 + LONGEST_DRAFT else len(ids)  # a prefill gives each row one token

    hook = network.register_forward_pre_hook(count, with_kwargs=True)
    engine.complete(chats, lambda _: None)
    hook.remove()
    return useful / decoded


def stored_rates(config: Config, skills: list[str], completions: dict[int, Completion], rounds: int) -> list[float]:
    """Rows per second, in this process, when every row is in the row store."""
    prompt, rates = read_prompt(config.prompt), []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "rows.sqlite"))
        setting = completion_setting(config, machine_on(config, "cpu"))
        keys = make_keys(setting, (canonical(prompt.messages(skill)) for skill in skills))
        store.put(setting, [(key, asdict(completions[row])) for row, key in enumerate(keys)])
        for _ in range(rounds):
            begin = time.perf_counter()
            completed = complete(config, prompt, skills, store)
            assert len(list(completed.read(range(len(skills))))) == len(skills)
            rates.append(len(skills) / (time.perf_counter() - begin))
            assert not completed.stored.missing
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classify", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--model", help="an option of conf/model; the default is conf/config.yaml's")
    parser.add_argument("--skills", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as engine.batch_size=64")
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from hardsoft.engines.local.engine import LocalEngine
    from hardsoft.engines.local.loading import load
    from hardsoft.engines.local.packing import pack_linears
    from hardsoft.engines.local.tokens import Encoder

    overrides = [*([f"model={arguments.model}"] if arguments.model else []), *arguments.overrides]
    reason = configuration("prompt=cot", *overrides)
    label = configuration("prompt=label_only", *overrides)
    assert isinstance(reason.engine, LocalEngineConfig)
    skills = pl.read_csv("data/reference/labels.csv")["skill"].to_list()[: arguments.skills]
    chats = [read_prompt(reason.prompt).messages(skill) for skill in skills]
    label_chats = [read_prompt(label.prompt).messages(skill) for skill in skills]
    network, tokenizer = load(reason.model, reason.quantization, "cpu")
    batch_size, limit, cores = machine_on(reason, "cpu").batch_size, reason.prompt.max_new_tokens, physical_cores()
    notebook = Notebook(network, tokenizer)
    packed, _ = load(reason.model, reason.quantization, "cpu")
    pack_linears(packed)
    single = LocalEngine(packed, Encoder(tokenizer), batch_size, limit)

    with (
        open_pool(reason, partial(local_engine, reason), len(skills), cores) as pool,
        open_pool(label, partial(local_engine, label), len(skills), cores) as label_pool,
        open_pool(reason, partial(forced_length_engine, reason), len(skills), cores) as forced_pool,
    ):
        rates = compare(
            {
                "notebook": (notebook, chats),
                "reason, one process": (single, chats),
                "reason": (pool, chats),
                "label": (label_pool, label_chats),
                "notebook, study lengths": (Notebook(network, tokenizer, study_length), chats),
                "reason, study lengths": (forced_pool, chats),
            },
            arguments.rounds,
        )
    theirs, ours = timed(notebook, chats)[1], timed(single, chats)[1]
    rates["stored"] = stored_rates(reason, skills, ours, arguments.rounds)
    agreement, both = label_agreement(theirs, ours)
    tokens = sum(completion.tokens for completion in ours.values())

    print(f"{len(skills)} skills, batch size {batch_size}, {torch.get_num_threads()} threads or {cores} processes")
    for name, values in rates.items():
        print(f"{name:<26}{statistics.median(values):>10.0f} skills/s   ({min(values):.0f} to {max(values):.0f})")
    figures = {
        "reason_ratio": median_ratio(rates, "reason", "notebook"),
        "reason_ratio_single": median_ratio(rates, "reason, one process", "notebook"),
        "study_lengths_ratio": median_ratio(rates, "reason, study lengths", "notebook, study lengths"),
        "label_ratio": median_ratio(rates, "label", "notebook"),
        "rerun_ratio": median_ratio(rates, "stored", "notebook"),
        "label_agreement": agreement,
        "rows_compared": both,
        "useful_tokens": useful_share(packed, single, chats, tokens),
        "useful_tokens_notebook": useful_share(network, notebook, chats, tokens),
    }
    for name, value in figures.items():
        print(f"{name:<26}{value:>10.3f}")
    if arguments.json:
        Path(arguments.json).write_text(to_json({name: round(value, 4) for name, value in figures.items()}), encoding="utf-8")


if __name__ == "__main__":
    main()
