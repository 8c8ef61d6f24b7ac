"""The channels of weather: variables, levels and preset sets.

To add one, add its `Variable` here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from sciml_dchag.channels import Channel, Variable, Vocabulary, register

VARIABLES: dict[str, Variable] = {
    v.short: v
    for v in (
        Variable(
            short="z", long="geopotential", units="m2 s-2", kind="level",
            plausible=(-3e3, 6e5), standard_name="geopotential",
        ),
        Variable(
            short="t", long="temperature", units="K", kind="level",
            plausible=(170.0, 330.0), standard_name="air_temperature",
            aliases=("ta", "air", "air_temperature", "tmp", "tmpprs", "temperature_isobaric"),
            cell_bounds=(100.0, 350.0),
        ),
        Variable(
            short="u", long="u_component_of_wind", units="m s-1", kind="level",
            plausible=(-80.0, 80.0), standard_name="eastward_wind",
            aliases=(
                "ua", "uwnd", "eastward_wind", "ugrd", "ugrdprs", "u-component_of_wind_isobaric",
            ),
            cell_bounds=(-250.0, 250.0),
        ),
        Variable(
            short="v", long="v_component_of_wind", units="m s-1", kind="level",
            plausible=(-50.0, 50.0), standard_name="northward_wind",
            aliases=(
                "va", "vwnd", "northward_wind", "vgrd", "vgrdprs", "v-component_of_wind_isobaric",
            ),
            cell_bounds=(-250.0, 250.0),
        ),
        Variable(
            short="q", long="specific_humidity", units="kg kg-1", kind="level",
            plausible=(-1e-4, 0.03), standard_name="specific_humidity",
            aliases=("hus", "shum", "qv", "spfh", "spfhprs", "specific_humidity_isobaric"),
            cell_bounds=(-0.01, 0.07),
        ),
        Variable(
            short="r", long="relative_humidity", units="%", kind="level",
            plausible=(-5.0, 130.0), standard_name="relative_humidity",
            aliases=("rhum", "hur", "rh", "rhprs", "relative_humidity_isobaric"),
            cell_bounds=(-50.0, 300.0),
        ),
        Variable(
            short="w", long="vertical_velocity", units="Pa s-1", kind="level",
            plausible=(-2.0, 2.0), standard_name="lagrangian_tendency_of_air_pressure",
            aliases=("omega", "wap", "vvel", "vvelprs", "vertical_velocity_pressure_isobaric"),
            cell_bounds=(-100.0, 100.0),
        ),
        Variable(
            short="vo", long="vorticity", units="s-1", kind="level",
            plausible=(-1e-3, 1e-3), standard_name="atmosphere_relative_vorticity",
            cell_bounds=(-0.1, 0.1),
        ),
        Variable(
            short="t2m", long="2m_temperature", units="K", kind="surface",
            plausible=(200.0, 320.0), standard_name="air_temperature",
            aliases=(
                "2t", "tas", "var_2t", "tmp2m", "tmp_2maboveground",
                "temperature_height_above_ground",
            ),
            cell_bounds=(150.0, 350.0),
        ),
        Variable(
            short="u10", long="10m_u_component_of_wind", units="m s-1", kind="surface",
            plausible=(-30.0, 30.0), standard_name="eastward_wind",
            aliases=(
                "10u", "uas", "u10m", "var_10u", "ugrd10m", "ugrd_10maboveground",
                "u-component_of_wind_height_above_ground",
            ),
            cell_bounds=(-98.0, 98.0),
        ),
        Variable(
            short="v10", long="10m_v_component_of_wind", units="m s-1", kind="surface",
            plausible=(-30.0, 30.0), standard_name="northward_wind",
            aliases=(
                "10v", "vas", "v10m", "var_10v", "vgrd10m", "vgrd_10maboveground",
                "v-component_of_wind_height_above_ground",
            ),
            cell_bounds=(-98.0, 98.0),
        ),
        Variable(
            short="msl", long="mean_sea_level_pressure", units="Pa", kind="surface",
            plausible=(9.0e4, 1.08e5), standard_name="air_pressure_at_mean_sea_level",
            aliases=(
                "psl", "slp", "prmsl", "mslp", "prmslmsl", "prmsl_meansealevel",
                "pressure_reduced_to_msl_msl",
            ),
            cell_bounds=(84000.0, 111000.0),
        ),
        Variable(
            short="sp", long="surface_pressure", units="Pa", kind="surface",
            plausible=(4.5e4, 1.1e5), standard_name="surface_air_pressure",
            aliases=("ps", "pressfc", "pres_surface", "pressure_surface"),
            cell_bounds=(25000.0, 112000.0),
        ),
        Variable(
            short="sst", long="sea_surface_temperature", units="K", kind="surface",
            plausible=(260.0, 315.0), standard_name="sea_surface_temperature",
            aliases=("sstk",),
            cell_bounds=(200.0, 330.0),
        ),
        Variable(
            short="i10fg", long="instantaneous_10m_wind_gust", units="m s-1", kind="surface",
            plausible=(0.0, 80.0), standard_name="wind_speed_of_gust",
            cell_bounds=(-1.0, 150.0),
        ),
        Variable(
            short="orography", long="geopotential_at_surface", units="m2 s-2", kind="static",
            plausible=(-2e3, 6e4), standard_name="surface_geopotential",
            aliases=("phis",),
            cell_bounds=(-10000.0, 95000.0),
        ),
        Variable(
            short="lsm", long="land_sea_mask", units="1", kind="static",
            plausible=(-1e-6, 1.0 + 1e-6), standard_name="land_binary_mask",
            aliases=("sftlf", "landsfc", "land_surface"),
            cell_bounds=(-0.05, 1.05),
        ),
        Variable(
            short="cos_latitude", long="cosine_of_latitude", units="1", kind="forcing",
            plausible=(0.0, 1.0),
        ),
        Variable(
            short="latitude_degrees", long="latitude_in_degrees", units="degree", kind="forcing",
            plausible=(-90.0, 90.0),
        ),
        Variable(
            short="sin_solar_time", long="sine_of_local_solar_time", units="1", kind="forcing",
            plausible=(-1.0, 1.0),
        ),
        Variable(
            short="cos_solar_time", long="cosine_of_local_solar_time", units="1", kind="forcing",
            plausible=(-1.0, 1.0),
        ),
        Variable(
            short="insolation", long="toa_incident_solar_radiation_flux", units="W m-2",
            kind="forcing", plausible=(0.0, 1420.0),
            standard_name="toa_incoming_shortwave_flux",
        ),
    )
}  # fmt: skip
"""Every known variable by its short name."""

SPANS = (1, 3, 6, 12, 24)
"""Hours over which accumulations are summed that have names of their own."""


ACCUMULATIONS = (
    Variable(
        short="tp", long="total_precipitation", units="m", kind="surface",
        plausible=(-1e-5, 0.2), aliases=("apcp",), cell_bounds=(-1e-3, 2.0), accumulated_hours=0,
    ),
    Variable(
        short="ssrd", long="surface_solar_radiation_downwards", units="J m-2", kind="surface",
        plausible=(-1e3, 4.5e7), cell_bounds=(-1e5, 6e7), accumulated_hours=0,
        standard_name="integral_wrt_time_of_surface_downwelling_shortwave_flux_in_air",
    ),
    Variable(
        short="strd", long="surface_thermal_radiation_downwards", units="J m-2", kind="surface",
        plausible=(-1e3, 4.5e7), cell_bounds=(-1e5, 6e7), accumulated_hours=0,
        standard_name="integral_wrt_time_of_surface_downwelling_longwave_flux_in_air",
    ),
)  # fmt: skip
"""Variables that are summed over the time step; bounds are those of sums over a day at most."""

VARIABLES |= {v.short: v for v in ACCUMULATIONS} | {
    f"{v.short}_{hours}h": replace(
        v, short=f"{v.short}_{hours}h", long=f"{v.long}_{hours}hr", aliases=(),
        accumulated_hours=hours,
    )
    for v in ACCUMULATIONS
    for hours in SPANS
}  # fmt: skip

LEVELS_13 = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
"""WeatherBench's 13 pressure levels, hPa."""


def level_name(variable: str, level_hpa: int) -> str:
    """Name a variable on a pressure level: `z500`; `u10hpa`, because `u10` is the wind at 10 m."""
    name = f"{variable}{level_hpa}"
    return f"{name}hpa" if name in VARIABLES else name


def parse(name: str) -> Channel | None:
    """Read `t2m`, or `z500` for geopotential at 500 hPa; None if it is neither."""
    if (variable := VARIABLES.get(name)) and variable.kind != "level":
        return Channel.of_variable(variable)
    if (match := re.fullmatch(r"([a-z]+)(\d+)(hpa)?", name)) and match[1] in VARIABLES:
        variable, level = VARIABLES[match[1]], int(match[2])
        if variable.kind == "level" and 1 <= level <= 1100:
            return Channel.of_variable(
                variable, name=level_name(variable.short, level), level_hpa=level
            )
    return None


def _levels(variables: str, levels: Iterable[int]) -> list[str]:
    levels = sorted(levels)
    return [level_name(variable, level) for variable in variables for level in levels]


_SURFACE = ["t2m", "u10", "v10"]
_LEVELS_16 = (20, 30, 70, *LEVELS_13)
_LEVELS_17 = (10, *_LEVELS_16)

PRESETS: dict[str, list[str]] = {
    # The paper's "80 channels": 3 + 13 geopotential + 4 x 16.
    "era5_80": _SURFACE + _levels("z", LEVELS_13) + _levels("tuvq", _LEVELS_16),
    # What the paper's public code lists: 10 hPa too.
    "era5_84": _SURFACE + _levels("z", LEVELS_13) + _levels("tuvq", _LEVELS_17),
    # WeatherBench 2's usual headline set: 4 surface fields and 5 x 13 levels.
    "wb2_69": [*_SURFACE, "msl", *_levels("ztuvq", LEVELS_13)],
}
"""Channel sets by name."""

register(
    Vocabulary(
        name="weather",
        variables=VARIABLES,
        parse=parse,
        usage="a surface variable (t2m), a variable with its level in hPa (z500)",
        likely=(
            *(n for n, v in VARIABLES.items() if v.kind != "level"),
            *(f"{n}{p}" for n, v in VARIABLES.items() if v.kind == "level" for p in LEVELS_13),
        ),
        presets=PRESETS,
    )
)
