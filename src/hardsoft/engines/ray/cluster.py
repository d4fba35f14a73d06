"""A Ray cluster, joined or started here: the program that its nodes run, their libraries, and the workers they have room for."""

import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import hardsoft
from hardsoft.config.engines import RayEngineConfig
from hardsoft.core.errors import InputError, first_line
from hardsoft.engines.shares import physical_cores

CONNECT_S = 10
"""Seconds that a cluster may take to accept a connection."""
ANSWER_S = 1800
"""Seconds that a node may take to answer, the transfer of the program and the reading of a checkpoint included."""


def join(address: str | None, files: Sequence[str]) -> None:
    """Join a cluster, or start Ray on this machine, with this program as it lies here.

    Args:
        files: what workers read; those in this folder travel, others must be seen from every node.

    Raises:
        InputError: there is no such cluster.
    """
    _check_listens(os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address or "")
    start = {"address": "local", "num_cpus": physical_cores(), "include_dashboard": False}
    with tempfile.TemporaryDirectory(prefix="hardsoft-") as folder:
        _copy_program(Path(folder), files)
        environment = {
            "working_dir": folder,
            "env_vars": {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "0")},
        }
        try:
            ray.init(
                **({"address": address} if address else start),
                runtime_env=environment,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # whatever its transports raise
            raise InputError(f"engine.address {address or 'null (Ray on this machine)'}: {first_line(error)}") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # the engine counts what comes back, and asks for the rest
    context.execution_no_progress_timeout_s = -1  # the engine knows how long it waits
    context.max_consecutive_actor_init_deaths = 10  # a node may go while a model loads
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # of what has no successor yet


def _check_listens(address: str) -> None:
    """Raise InputError if nobody listens at `host:port`: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        except OSError as error:
            why = error.strerror or error
            raise InputError(f"engine.address {address}: {why}; does `ray start --head` run there?") from None


def _copy_program(folder: Path, files: Sequence[str]) -> None:
    package = Path(str(hardsoft.__file__)).parent
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in filter(_lies_in_this_folder, files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file)


def _lies_in_this_folder(file: str) -> bool:
    return not Path(file).is_absolute() and ".." not in Path(file).parts


def on_every_node(function: Callable[..., Any], *given: Any) -> dict[str, Any]:
    """What a function returns on each node, by the node's name.

    Raises:
        InputError: a node cannot run it.
    """
    task = ray.remote(num_cpus=0)(function)
    asked = {
        f"{node['NodeManagerHostname']} {node['NodeID'][:8]}": task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*given)
        for node in living_nodes()
    }
    try:
        return dict(zip(asked, ray.get(list(asked.values()), timeout=ANSWER_S), strict=True))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"ray: a node cannot run this program: {lines[-1]}") from None


def compare_libraries(libraries: Mapping[str, str]) -> None:
    """See that every node has the same versions of libraries.

    Raises:
        InputError: one has others.
    """
    for node, fault in on_every_node(other_versions, libraries).items():
        if fault:
            raise InputError(f"ray: node {node} has {fault}")


def other_versions(libraries: Mapping[str, str]) -> str:
    """Which libraries have other versions in this process, as the end of a sentence; empty if none."""
    here = versions(list(libraries))
    different = [f"{name} {here[name]} instead of {wanted}" for name, wanted in libraries.items() if here[name] != wanted]
    return f"{', '.join(different)}; install the same versions everywhere" if different else ""


def versions(libraries: Sequence[str]) -> dict[str, str]:
    """The versions of libraries in this process; `none` of those that are missing."""
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "none"
    return found


def count_workers(option: RayEngineConfig) -> tuple[int, int]:
    """The fewest and the most workers that the engine may have.

    Raises:
        InputError: the cluster has no room for the fewest.
    """
    room = sum(_room(node["Resources"], option) for node in living_nodes())
    wanted = option.workers
    fewest, most = wanted if isinstance(wanted, list) else (room, room) if wanted == "auto" else (wanted, wanted)
    if room < max(1, fewest):
        raise InputError(
            f"engine.workers: {max(1, fewest)} wanted, and the cluster has room for {room} with engine.num_cpus "
            f"{option.num_cpus} and engine.num_gpus {option.num_gpus:g} each; lower one of them"
        )
    return fewest, min(most, room)


def _room(has: dict[str, float], option: RayEngineConfig) -> int:
    fit, share = int(has.get("CPU", 0) // option.num_cpus), option.num_gpus
    if not share:
        return fit
    gpus = int(has.get("GPU", 0))
    return min(fit, gpus * int(1 / share) if share < 1 else gpus // int(share))  # a worker's share is of one GPU


def living_nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def cpus() -> tuple[float, float]:
    """Free CPUs of the cluster, and all. A working worker takes CPUs, so where both are the same nobody works."""
    return ray.available_resources().get("CPU", 0.0), ray.cluster_resources().get("CPU", 0.0)
