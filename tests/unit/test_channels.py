import pytest

from sciml_dchag.channels import Channel, ChannelSet, canonical_units
from sciml_dchag.weather.channels import LEVELS_13, PRESETS


def test_presets_have_the_sizes_in_their_names() -> None:
    for name in PRESETS:
        assert len(ChannelSet.of(name)) == int(name.split("_")[1])


def test_the_80_channels_are_those_of_the_paper() -> None:
    channels = ChannelSet.of("era5_80")
    assert [c.name for c in channels if c.kind == "surface"] == ["t2m", "u10", "v10"]
    by_variable = {v: [c.level_hpa for c in channels if c.variable == v] for v in "ztuvq"}
    assert by_variable["z"] == list(LEVELS_13)
    for variable in "tuvq":
        assert by_variable[variable] == sorted([20, 30, 70, *LEVELS_13])


def test_wind_at_10_hpa_and_at_10_m_have_names_of_their_own() -> None:
    channels = ChannelSet.of("era5_84")
    assert channels["u10"].kind == "surface"
    assert channels["u10hpa"].level_hpa == 10
    assert channels["t10"].level_hpa == 10  # nothing else is called so


def test_a_name_is_read_back_from_every_channel() -> None:
    for channel in ChannelSet.of("era5_84"):
        assert Channel.parse(channel.name) == channel
    assert Channel.parse("r652.0").wavelength_nm == 652.0
    history = Channel.parse("z500@-6h")
    assert (history.offset_hours, history.level_hpa, history.name) == (-6, 500, "z500@-6h")


@pytest.mark.parametrize(
    ("name", "hint"), [("z500hPa", "z500"), ("t2n", "t2m"), ("mls", "msl"), ("z5000", "z500")]
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean '{hint}'"):
        Channel.parse(name)


def test_a_repeated_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="'t2m' is listed twice"):
        ChannelSet.of("t2m,z500,t2m")


def test_positions_are_found_by_name() -> None:
    channels = ChannelSet.of("t2m, z500 ,u10")
    assert channels.indices(["u10", "t2m"]) == [2, 0]
    assert "z500" in channels and "z850" not in channels
    with pytest.raises(ValueError, match="'z850' is not among t2m, z500, u10"):
        channels.index("z850")


def test_labels_are_for_people() -> None:
    assert Channel.parse("z500").label == "geopotential at 500 hPa"
    assert Channel.parse("r652.0").label == "reflectance at 652 nm"


@pytest.mark.parametrize("spelling", ["m**2 s**-2", "m^2/s^2", "m2 s-2", "m2/s2"])
def test_units_have_one_spelling(spelling: str) -> None:
    assert canonical_units(spelling) == "m2 s-2"
