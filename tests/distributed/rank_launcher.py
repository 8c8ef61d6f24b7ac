"""Run a function on several real ranks: processes joined by gloo."""

import datetime
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_SECONDS = 300


def _rank(
    rank: int, world: int, store: str, function: Callable[..., Any], arguments: tuple[Any, ...],
    answer: Connection,
) -> None:  # fmt: skip
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))  # as torchrun
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world,
            timeout=datetime.timedelta(seconds=60),
        )  # fmt: skip
        # Plain pickle: torch would share the memory of a process that ends.
        answer.send_bytes(pickle.dumps(function(*arguments)))
        dist.destroy_process_group()
    except BaseException:
        answer.send_bytes(pickle.dumps(RuntimeError(f"rank {rank}:\n{traceback.format_exc()}")))


def on_ranks(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function on every rank and return what each returned.

    Raises:
        RuntimeError: a rank failed; with its traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch.distributed.fsdp",
            "torch.distributed.tensor.parallel",
            "sciml_dchag.parallel.apply",
            "sciml_dchag.training.trainer",
            "sciml_dchag.evaluation.evaluate",
        ]
    )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        pairs = [context.Pipe(duplex=False) for _ in range(world)]
        processes = [
            context.Process(
                target=_rank,
                args=(rank, world, f"{folder}/store", function, arguments, send),
                daemon=True,
            )
            for rank, (_, send) in enumerate(pairs)
        ]
        for process, (_, send) in zip(processes, pairs, strict=True):
            process.start()
            send.close()
        answers: list[Any] = []
        try:
            for receive, _ in pairs:
                if not receive.poll(TIMEOUT_SECONDS):
                    raise RuntimeError(f"no answer within {TIMEOUT_SECONDS} s")
                answers.append(pickle.loads(receive.recv_bytes()))
        finally:
            failed = [a for a in answers if isinstance(a, RuntimeError)]
            for process in processes:
                if failed or len(answers) < world:
                    process.kill()
                process.join(30)
    if failed:  # of all ranks, as most only lost the one that failed first
        raise RuntimeError("\n".join(map(str, failed)))
    return answers
