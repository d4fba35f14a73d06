"""The engine that a configuration asks for, in as many processes as pay. What an engine needs is imported where it runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from hardsoft.config.engines import RayEngineConfig, ServerEngineConfig
from hardsoft.config.machine import Machine
from hardsoft.config.preflight import read_key
from hardsoft.config.schema import Config, PromptConfig
from hardsoft.engines.base import Engine
from hardsoft.engines.local.build import local_engine
from hardsoft.engines.pool import Pool
from hardsoft.engines.shares import count_processes, physical_cores, rows_in_a_share

RAY = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still waits when this process has left a cluster would start one
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables of Ray."""


@contextmanager
def open_engine(config: Config, machine: Machine, rows: int, may_fail: int = 0) -> Iterator[Engine]:
    """An engine for so many rows, until the end of the `with` block.

    Args:
        machine: what `auto` means here.
        may_fail: rows whose failure ends no run of a server's.

    Raises:
        InputError: the model cannot be loaded.
    """
    if isinstance(config.engine, ServerEngineConfig):
        yield _server_engine(config.engine, config.prompt, may_fail)
        return
    if isinstance(config.engine, RayEngineConfig):
        for name, value in RAY.items():
            os.environ.setdefault(name, value)  # read when it is imported
        from hardsoft.engines.ray.engine import ray_engine

        with ray_engine(config, machine, rows) as engine:
            yield engine
        return
    processes = count_processes(config, machine, rows)
    if processes == 1:
        yield local_engine(config, machine)
        return
    window, on_gpus = rows_in_a_share(config, machine, rows, processes), machine.device == "cuda"
    devices = [f"cuda:{number}" if on_gpus else None for number in range(processes)]
    makers = [partial(local_engine, config, machine, window, device) for device in devices]
    with Pool(makers, window, threads=None if on_gpus else max(1, physical_cores() // processes)) as pool:
        yield pool


def _server_engine(option: ServerEngineConfig, prompt: PromptConfig, may_fail: int) -> Engine:
    """One server, or several as one."""
    from hardsoft.engines.fleet import Fleet
    from hardsoft.engines.server import ServerEngine
    from hardsoft.servers.client import NO_KEY

    key = read_key(option.api_key_env) or NO_KEY
    scores = prompt.mode == "label"
    servers = {url: ServerEngine(option, url, prompt.max_new_tokens, key, scores, may_fail) for url in option.addresses()}
    return Fleet(servers) if len(servers) > 1 else next(iter(servers.values()))
