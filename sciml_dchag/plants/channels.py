"""The channels of plants: reflectance by wavelength."""

from __future__ import annotations

import re

from sciml_dchag.channels import Channel, Variable, Vocabulary, declared, register

REFLECTANCE = Variable(
    short="reflectance", long="reflectance", units="1", kind="band", plausible=(0.0, 1.0)
)


def band_name(wavelength_nm: float) -> str:
    """Name reflectance at a wavelength: `r652.0`, `r401.25`, or as a recipe declares it."""
    nm = round(float(wavelength_nm), 2)
    own = (
        c.name
        for c in declared()
        if c.wavelength_nm is not None and round(c.wavelength_nm, 2) == nm
    )
    return next(own, f"r{nm}")


def parse(name: str) -> Channel | None:
    """Read `r652.0`, reflectance at 652 nm; None if it is none."""
    if match := re.fullmatch(r"r(\d+\.\d+)", name):
        return Channel.of_variable(REFLECTANCE, name=name, wavelength_nm=float(match[1]))
    return None


register(
    Vocabulary(
        name="plants",
        variables={REFLECTANCE.short: REFLECTANCE},
        parse=parse,
        usage="a reflectance with its wavelength in nm (r652.0)",
    )
)
