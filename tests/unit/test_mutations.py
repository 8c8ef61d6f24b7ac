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
    from mutated_inputs import KINDS, make_inputs

    (tmp_path / "inputs").mkdir()
    make_inputs(tmp_path / "inputs")
    known = (118, 122, 174, 218, 287, 332, 362)  # tracebacks once
    numbers = sorted({*range(24), *known})
    found = list(mutations.endings(numbers, 0, tmp_path / "inputs", tmp_path / "work"))
    assert [f"{e.number} {e.arguments}: {e.said}" for e in found if e.bad] == []
    assert [e.number for e in found] == numbers
    assert {e.kind for e in found} == set(KINDS)
    assert {e.verdict for e in found} == {"result", "sentence"}
    sys.modules.pop("mutations")
