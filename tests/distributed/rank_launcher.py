"""Run a function on several real ranks: processes joined by gloo, kept for the next call.

Starting a rank and its first use of a mesh cost seconds of CPU time, so that ranks live on between
tests. There is one pool per number of ranks. Each call finds the state that
a fresh process would have (`_fresh_state`), and a pool in which a rank fails is replaced.
"""

import atexit
import datetime
import gc
import multiprocessing
import os
import pickle
import random
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 300
"""How long a call may take."""
_POOLS: dict[int, "_Pool"] = {}


class RankError(RuntimeError):
    """What one rank raised."""


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function on every rank and return what each returned, in the order of ranks.

    Args:
        world: number of ranks.
        function: importable by its name, as are the arguments and what it returns.
        arguments: the same for every rank.

    Raises:
        RuntimeError: a rank failed; with the traceback of every rank that did, as most only lost
            contact with the one that failed first.
    """
    pool = _POOLS.get(world)
    if pool is None or not pool.alive:
        close_pool(world)
        pool = _POOLS[world] = _Pool(world)
    answers: list[Any] = []
    try:
        answers = pool.call(function, arguments)
    finally:
        failed = [answer for answer in answers if isinstance(answer, RankError)]
        if failed or len(answers) < world:  # also after a timeout of the test
            close_pool(world)
    if failed:
        raise RuntimeError("\n".join(map(str, failed)))
    return answers


def close_pool(world: int) -> None:
    """End the ranks of a pool, if there is one."""
    if pool := _POOLS.pop(world, None):
        pool.close()


@atexit.register
def _close_all() -> None:
    for world in list(_POOLS):
        close_pool(world)


class _Pool:
    """Ranks that wait for calls."""

    def __init__(self, world: int) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once, in the process that ranks are forked from.
        context.set_forkserver_preload(
            [
                "torch._dynamo",
                "torch.distributed.fsdp",
                "torch.distributed.tensor.parallel",
                "dask.array",
                "matplotlib.figure",
                "scipy.optimize",
                "sciml_dchag.parallel.apply",
                "sciml_dchag.training.trainer",
                "sciml_dchag.weather.forecast.evaluate",
                "sciml_dchag.weather.forecast.predict",
            ]
        )
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.folder = tempfile.TemporaryDirectory(prefix="ranks-")
        pairs = [context.Pipe() for _ in range(world)]
        self.connections = [ours for ours, _ in pairs]
        self.processes = [
            context.Process(
                target=_serve, args=(rank, world, f"{self.folder.name}/store", theirs), daemon=True
            )
            for rank, (_, theirs) in enumerate(pairs)
        ]
        for process, (_, theirs) in zip(self.processes, pairs, strict=True):
            process.start()
            theirs.close()

    @property
    def alive(self) -> bool:
        """Whether all ranks wait for a call."""
        return all(process.is_alive() for process in self.processes)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
        """Return each rank's answer, a `RankError` from those that failed."""
        request = pickle.dumps((function, arguments, str(Path.cwd()), dict(os.environ)))
        for connection in self.connections:
            connection.send_bytes(request)
        answers: list[Any] = []
        for rank, (connection, process) in enumerate(
            zip(self.connections, self.processes, strict=True)
        ):
            if not connection.poll(TIMEOUT_SECONDS):
                raise RuntimeError(f"rank {rank}: no answer within {TIMEOUT_SECONDS} s")
            try:
                answers.append(pickle.loads(connection.recv_bytes()))
            except EOFError:
                process.join(30)
                answers.append(RankError(f"rank {rank}: ended with status {process.exitcode}"))
        return answers

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join(30)
        for connection in self.connections:
            connection.close()
        self.folder.cleanup()


def _serve(rank: int, world: int, store: str, calls: Connection) -> None:
    """Answer calls until one fails or the tests end."""
    import torch.distributed as dist

    gc.freeze()  # what is imported is not looked through after each call
    device = os.environ.get("SCIML_DCHAG_TEST_DEVICE", "cpu")
    backend = "gloo" if device == "cpu" else f"cpu:gloo,{device}:gloo"
    dist.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=world,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    # As torchrun, but that all ranks share one accelerator.
    number = rank if device == "cpu" else 0
    of_rank = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(number)}
    while True:
        try:
            function, arguments, folder, environment = pickle.loads(calls.recv_bytes())
        except EOFError:
            return
        try:
            _fresh_state(folder, environment | of_rank)
            # Plain pickle: torch would share the memory of a process that ends.
            answer = pickle.dumps(function(*arguments))
            dist.barrier()
            _forget_meshes()
        except BaseException:
            calls.send_bytes(pickle.dumps(RankError(f"rank {rank}:\n{traceback.format_exc()}")))
            return  # its connections close, so that the others do not wait for it
        calls.send_bytes(answer)


def _fresh_state(folder: str, environment: dict[str, str]) -> None:
    """Give a call the state of a fresh process, whatever the calls before have changed.

    What a function patches in a module it must restore itself.
    """
    import numpy as np
    import torch

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.use_deterministic_algorithms(False)
    torch.compiler.reset()


def _forget_meshes() -> None:
    """Close the groups of a call's meshes, each of which holds sockets and threads that wake up.

    DTensor's cache goes with them: meshes of one shape are equal there, so that it would hand out
    groups that are closed.
    """
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, debug

    for group in list(dist.distributed_c10d._world.pg_map):
        if group is not dist.group.WORLD:
            dist.destroy_process_group(group)
    if clear := getattr(debug, "_clear_sharding_prop_cache", None):
        clear()
    else:  # torch before it had a second cache
        DTensor._op_dispatcher.sharding_propagator.propagate_op_sharding.cache.cache_clear()
    gc.collect()  # what held them
