"""Files and settings changed at random, some of each kind: a result or one sentence, and soon."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_changed_files_end_in_a_result_or_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(tmp_path)
    import mutations

    inputs, work = tmp_path / "inputs", tmp_path / "work"
    mutations.make_all_inputs(inputs)
    known = (118, 122, 174, 218, 287, 332, 362)  # tracebacks once
    numbers = {"files": sorted({*range(16), *known}), "tasks": list(range(12))}
    found = {group: list(mutations.endings(numbers[group], 0, inputs, work, group))
             for group in numbers}  # fmt: skip
    every = [ending for endings in found.values() for ending in endings]
    assert [f"{e.number} {e.arguments}: {e.said}" for e in every if e.bad] == []
    for group, endings in found.items():
        assert [e.number for e in endings] == numbers[group]
        assert {e.kind for e in endings} == set(mutations.GROUPS[group])
    assert {e.verdict for e in every} == {"result", "sentence"}
    sys.modules.pop("mutations")
