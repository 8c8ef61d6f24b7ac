"""Ranks live on between calls, which notice nothing of each other."""

import os
import time
from pathlib import Path
from typing import Any

import launcher_workers as workers
import pytest
import rank_launcher
from rank_launcher import on_ranks


def processes(states: list[dict[str, Any]]) -> list[int]:
    return [state.pop("process") for state in states]


def test_a_call_finds_nothing_of_the_calls_before(tmp_path: Path) -> None:
    before = on_ranks(2, workers.state)
    assert [state["environment"]["RANK"] for state in before] == ["0", "1"]
    assert before[0]["folder"] == str(Path.cwd())
    for _ in range(2):  # the second time on a mesh that is equal to the first one
        assert on_ranks(2, workers.disturb, str(tmp_path)) == [[2.0], [2.0]]
    after = on_ranks(2, workers.state)
    assert processes(before) == processes(after)
    assert before == after


def test_a_call_has_the_environment_and_folder_of_its_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_ranks(2, workers.state)  # ranks that were there before
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OF_THIS_TEST", "1")
    for state in on_ranks(2, workers.state):
        assert state["folder"] == str(tmp_path)
        assert state["environment"]["OF_THIS_TEST"] == "1"


@pytest.mark.parametrize(
    ("does", "message"),
    [("raise", "(?s)rank 1:.*ValueError: a rank's own error"), ("kill", "rank 1: ended with status -9")],
)  # fmt: skip
def test_ranks_of_a_failed_call_are_replaced(does: str, message: str) -> None:
    before = processes(on_ranks(2, workers.state))
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=message):
        on_ranks(2, workers.on_rank_1, does)
    assert time.monotonic() - start < 50  # the rank that waits does not wait for its timeout
    after = processes(on_ranks(2, workers.state))
    assert not set(before) & set(after)
    for process in before:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_ranks_that_ended_between_calls_are_replaced() -> None:
    before = processes(on_ranks(2, workers.state))
    rank_launcher._POOLS[2].processes[1].kill()
    rank_launcher._POOLS[2].processes[1].join()
    assert not set(before) & set(processes(on_ranks(2, workers.state)))
