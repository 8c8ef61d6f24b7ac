"""Where each input of a forecaster is, against the names, which are the only other truth."""

import subprocess
import sys

import pytest

from sciml_dchag.channels import ChannelSet
from sciml_dchag.objectives.layout import InputLayout

LAYOUT = InputLayout(
    channels=("t2m", "z500", "u10"), history_hours=(-6, -12), static=("lsm",),
    forcings=("cos_latitude", "insolation"),
)  # fmt: skip


def test_the_inputs_are_states_by_channel_then_constants() -> None:
    assert LAYOUT.names == (
        "t2m", "t2m@-6h", "t2m@-12h", "z500", "z500@-6h", "z500@-12h", "u10", "u10@-6h",
        "u10@-12h", "lsm", "cos_latitude", "insolation",
    )  # fmt: skip
    assert (len(LAYOUT), LAYOUT.times, LAYOUT.states) == (12, 3, 9)
    assert LAYOUT.names[LAYOUT.states :] == LAYOUT.constants


def test_names_are_those_of_the_vocabulary() -> None:
    channels = ChannelSet(LAYOUT.names)
    assert [c.offset_hours for c in channels][:3] == [0, -6, -12]
    assert channels[4] == ChannelSet.of("z500")[0].at(-6)


def test_every_position_has_the_name_that_it_says() -> None:
    for channel, name in enumerate(LAYOUT.channels):
        for time, hours in enumerate(LAYOUT.hours):
            expected = f"{name}@{hours}h" if hours else name
            assert LAYOUT.names[LAYOUT.position(channel, time)] == expected
    assert [LAYOUT.names[i] for i in LAYOUT.now((2, 0))] == ["u10", "t2m"]
    with pytest.raises(AssertionError):
        LAYOUT.position(3)


@pytest.mark.parametrize("first", range(13))
def test_any_range_of_inputs_is_what_its_parts_make(first: int) -> None:
    for last in range(first, 13):
        own = range(first, last)
        found: list[str | None] = [None] * len(own)
        for part in LAYOUT.by_time(own):
            for channel, place in zip(part.channels, part.places, strict=True):
                assert found[place] is None
                found[place] = LAYOUT.names[LAYOUT.position(channel, part.time)]
        constants = LAYOUT.constants[LAYOUT.constants_of(own)]
        found[len(found) - len(constants) :] = constants
        assert tuple(found) == LAYOUT.names[first:last]


def test_it_needs_no_torch() -> None:
    code = "import sys, sciml_dchag.objectives.layout; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
