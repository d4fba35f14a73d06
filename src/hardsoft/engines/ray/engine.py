"""Chats stream through a pool of workers on a cluster, each of which holds the model, and their answers stream back.

The questions wait in Ray's object store; Ray Data hands them out, replaces what dies and holds back what would pile up. What it
leaves is done here: it drops blocks that took their worker down twice, so what came back is counted, and what is missing is asked
again in ever smaller blocks, until a row that kills its worker is alone and takes no other along.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any

from hardsoft.config.engines import RayEngineConfig
from hardsoft.config.machine import Machine, libraries_of, readout_of
from hardsoft.config.schema import Config
from hardsoft.core.chat import Chat, Completion
from hardsoft.core.errors import InputError, first_line
from hardsoft.core.progress import note
from hardsoft.engines.base import OnResults
from hardsoft.engines.shares import rows_in_a_share

try:
    import pyarrow as pa
    import ray
    import ray.data
    import ray.exceptions
except ImportError as error:
    raise InputError(f"engine=ray needs Ray ({error}); pip install -c constraints.txt -e '.[ray]'") from None

from hardsoft.engines.ray.checkpoint import Checkpoint
from hardsoft.engines.ray.cluster import compare_libraries, count_workers, cpus, join, living_nodes, on_every_node, versions
from hardsoft.engines.ray.frame import Frame
from hardsoft.engines.ray.worker import Sender, Worker, read_answers

SMALLER = 32
"""By so much are the blocks smaller in which lost rows are asked again."""
IDLE_S = 60.0
"""After so many seconds in which the cluster does nothing, what it owes is asked again."""
NOTE_S = 60.0
"""Seconds between words to the one who waits for the first answer."""
PATIENCE_S = 3600.0
"""Seconds to wait for one more answer while the cluster is busy, and at least ten times as long as for any before."""
KILLED = "its worker ended twice while it was alone with this row"


@contextlib.contextmanager
def ray_engine(config: Config, machine: Machine, rows: int, worker: type = Worker) -> Iterator["RayEngine"]:
    """An engine on the configured cluster, until the end of the `with` block.

    Args:
        machine: what `auto` means on the workers' machines.
        worker: the class that answers; tests and benchmarks have others.

    Raises:
        InputError: no cluster answers, its libraries differ from this process's, or it has no room for the workers.
    """
    assert isinstance(config.engine, RayEngineConfig)
    prompt = config.prompt
    join(config.engine.address, [path for path in (prompt.template, prompt.dep, readout_of(config)) if path])
    libraries = versions(libraries_of(config))
    try:
        compare_libraries(libraries)
        pool = count_workers(config.engine)
        checkpoint = Checkpoint(config.model.name) if config.model.source == "folder" else None
        if checkpoint and not all(on_every_node(Checkpoint.lies_here, checkpoint).values()):
            checkpoint.send()
        note(f"ray: nodes {len(living_nodes())}, workers up to {pool[1]}")
        block = rows_in_a_share(config, machine, rows, pool[1])
        given = {"config": config, "machine": machine, "checkpoint": checkpoint, "libraries": libraries}
        yield RayEngine(worker, given, config.engine, pool, block)
    except ray.exceptions.RayError as error:
        raise InputError(f"ray: {type(error).__name__}: {first_line(error)}; what came is stored, run again to go on") from None
    finally:
        ray.shutdown()


class RayEngine:
    """Workers on a Ray cluster as one engine."""

    def __init__(self, worker: type, given: dict[str, Any], option: RayEngineConfig, pool: tuple[int, int], block: int) -> None:
        """
        Args:
            worker: the class of the workers.
            given: what their constructor takes beside the frame.
            option: what each worker needs of a node.
            pool: the fewest and the most workers.
            block: rows that a worker is given at once.
        """
        self._worker, self._given, self._option, self._pool, self._block = worker, given, option, pool, block
        self._senders: dict[str, Sender] = {}
        """The last word of each worker that has answered lately, by its actor."""
        self._memory = 0.0
        self._longest_wait = 0.0

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of the workers, summed."""
        return self._memory

    @property
    def workers(self) -> list[str]:
        """The devices of those that have answered, and whose nodes live."""
        return [sender.device for sender in self._senders.values()]

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat.

        Raises:
            InputError: a worker cannot load the model, or none answers.
        """
        rows = enumerate(chats)
        first = list(islice(rows, self._block))
        if not first:
            return
        frame = Frame([chat for _, chat in first])
        blocks, count = [ray.put(frame.pack(first))], len(first)
        while some := list(islice(rows, self._block)):
            blocks.append(ray.put(frame.pack(some)))
            count += len(some)
        done = bytearray(count)

        def keep(table: pa.Table) -> None:
            answers, senders = read_answers(table)
            self._see(senders)
            new = [(row, completion) for row, completion in answers if not done[row]]
            for row, _ in new:
                done[row] = 1
            on_results(new)

        waiting, sizes = blocks, [self._block, max(1, self._block // SMALLER), 1]
        while waiting:
            before = done.count(1)
            fault = self._ask(waiting, frame, keep, alone=sizes[0] == 1)
            if not any(done) and len(waiting) > 1:
                fault = fault or "every worker died before it answered (see the logs of Ray)"
            if fault and done.count(1) == before:
                raise InputError(f"ray: {fault}; what came is stored, run again to go on")
            if not fault:
                del sizes[0]
            lost = [row for row, is_done in enumerate(done) if not is_done]
            waiting = self._again(blocks, lost, sizes[0]) if sizes else []
            if waiting:
                note(f"ray: {fault or 'workers died'}; {len(lost)} rows are asked again, {sizes[0]} at a time")
        if not sizes:
            on_results([(row, Completion(KILLED, "error", 0)) for row in lost])

    def _again(self, blocks: Sequence[Any], rows: Sequence[int], size: int) -> list[Any]:
        """Some rows of the blocks, in blocks of their own."""
        again = []
        for number, some in groupby(rows, lambda row: row // self._block):
            block, places = ray.get(blocks[number]), [row % self._block for row in some]
            again += [ray.put(block.take(places[start : start + size])) for start in range(0, len(places), size)]
        return again

    def _ask(self, blocks: Sequence[Any], frame: Frame, keep: Callable[[pa.Table], None], alone: bool) -> str | None:
        """Let a pool of workers answer blocks, as far as answers come.

        Args:
            alone: whether a worker has one block at a time, so that it takes no other along.

        Returns:
            Why no more came before the end, if so.
        """
        fewest, most = (min(workers, len(blocks)) for workers in self._pool)
        pool = ray.data.ActorPoolStrategy(
            min_size=most if alone else fewest, max_size=most, max_tasks_in_flight_per_actor=1 if alone else None
        )
        self._senders.clear()

        def answers() -> "ray.data.Dataset":
            return ray.data.from_arrow_refs(list(blocks)).map_batches(
                self._worker,
                fn_constructor_kwargs={**self._given, "frame": frame},
                compute=pool,
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=self._option.num_cpus,
                num_gpus=self._option.num_gpus or None,
                max_task_retries=1,
            )

        came: Came = queue.Queue(maxsize=4)
        left = threading.Event()
        threading.Thread(target=_read, args=(answers, came, left), daemon=True).start()
        try:
            while (table := self._wait(came)) is not None:
                if isinstance(table, Exception):
                    return f"{type(table).__name__}: {first_line(table)}"
                keep(table)
        finally:
            left.set()
        return None

    def _wait(self, came: "Came") -> pa.Table | Exception | None:
        """What comes next; an error if the cluster idles, or lets wait for too long."""
        begin = busy = told = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                table = came.get(timeout=5.0)
                self._longest_wait = max(self._longest_wait, time.monotonic() - begin)
                return table
            now, free, all_of_them = time.monotonic(), *cpus()
            busy = busy if free >= all_of_them else now
            if now - busy > IDLE_S:
                return TimeoutError(f"no worker had a CPU for {IDLE_S:.0f} s")
            if now - begin > max(PATIENCE_S, 10 * self._longest_wait):
                raise InputError(
                    f"ray: no answer in {now - begin:.0f} s (see `ray status`); what came is stored, run again to go on"
                )
            if not self._memory and now - told > NOTE_S:
                told = now
                note(f"ray: no worker has answered yet; {free:g} of the cluster's {all_of_them:g} CPUs are free")

    def _see(self, senders: Sequence[Sender]) -> None:
        for sender in senders:
            if sender.fault:
                raise InputError(f"{sender.fault} (a worker on node {sender.node[:8]})")
            self._senders[sender.actor] = sender
        living = {node["NodeID"] for node in living_nodes()}
        self._senders = {actor: sender for actor, sender in self._senders.items() if sender.node in living}
        self._memory = max(self._memory, sum(sender.peak_memory_mb for sender in self._senders.values()))


Came = queue.Queue[pa.Table | Exception | None]


def _read(answers: "Callable[[], ray.data.Dataset]", came: Came, left: threading.Event) -> None:
    """Pass answers on, until their end or until nobody waits for them any more."""
    try:
        for table in answers().iter_batches(batch_size=None, batch_format="pyarrow"):
            if left.is_set():
                return
            came.put(table)
        came.put(None)
    except Exception as error:
        came.put(error)
