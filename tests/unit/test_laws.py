"""Laws with units: units, tables, the check before a search, groups, the front, baselines."""

from __future__ import annotations

from fractions import Fraction
from multiprocessing import get_start_method
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sympy

from sciml_dchag.laws.baselines import baseline_scores, index_formulas, looks_like_bands
from sciml_dchag.laws.discover import FOLDER, Laws, _write, discover
from sciml_dchag.laws.formula import Formula, r2
from sciml_dchag.laws.front import Candidate, folds, front, held_out_rows, law_of
from sciml_dchag.laws.table import Constant, LawTable, from_frame, read_table
from sciml_dchag.laws.units import BASE, Unit, can_be_made

WIND = {"target": "v", "inputs": ["slope", "f"]}


def wind_table(rows: int = 240, noise: float = 0.0) -> pd.DataFrame:
    """v = 1.04 slope / f, with a day for every 20 rows."""
    rng = np.random.default_rng(0)
    f = rng.uniform(0.7e-4, 1.4e-4, rows) * rng.choice([-1, 1], rows)
    slope = rng.normal(0, 1e-3, rows)
    v = 1.04 * slope / f
    v += noise * v.std() * rng.normal(size=rows)
    return pd.DataFrame(
        {"v [m s-1]": v, "slope [m s-2]": slope, "f [s-1]": f, "day": np.arange(rows) // 20}
    )


def wind(constants: tuple[str, ...] = ("c:1",), **kwargs: float) -> LawTable:
    frame = wind_table(**kwargs)  # type: ignore[arg-type]
    return from_frame(frame, "v", ["slope", "f"], [Constant.parse(c) for c in constants], "day")


def geostrophic(value: float = 1.0) -> Formula:
    c, slope, f = sympy.symbols("c slope f")
    return Formula(expression=c * slope / f, constants={"c": value})


@pytest.mark.parametrize(
    ("text", "base", "scale"),
    [
        ("J kg-1 K-1", {"m": 2, "s": -2, "K": -1}, 1.0),
        ("m**2/s**2", {"m": 2, "s": -2}, 1.0),
        ("hPa", {"kg": 1, "m": -1, "s": -2}, 100.0),
        ("g kg-1", {}, 1e-3),
        ("ug cm-2", {"kg": 1, "m": -2}, 1e-5),
        ("mm day-1", {"m": 1, "s": -1}, 1e-3 / 86400),
        ("m^0.5", {"m": Fraction(1, 2)}, 1.0),
        ("%", {}, 0.01),
        ("", {}, 1.0),
    ],
)
def test_units_are_read(text: str, base: dict[str, int], scale: float) -> None:
    unit = Unit.parse(text)
    assert dict(zip(BASE, unit.exponents, strict=True)) == dict.fromkeys(BASE, 0) | base
    assert unit.scale == pytest.approx(scale)
    assert Unit.parse(unit.text()).exponents == unit.exponents


@pytest.mark.parametrize("text", ["degC", "parsec", "m s--1", "log(Pa)"])
def test_units_that_are_not_known_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not known: write SI units"):
        Unit.parse(text)


@pytest.mark.parametrize(
    ("target", "available", "possible"),
    [
        ("m s-1", ["m s-2", "s-1"], True),
        ("m s-1", ["m s-2", "1"], False),
        ("m s-1", ["m2 s-2"], True),  # a square root
        ("m", ["m3"], False),  # a cube root, for which there is no operation
        ("m2 s-2", ["K", "Pa", "Pa", "J kg-1 K-1"], True),
        ("m2 s-2", ["K", "Pa"], False),
        ("1", ["m"], True),
        ("m", ["m2 s", "m3 s2"], True),  # (m2 s)2 / (m3 s2)
        ("kg", ["m0.5", "kg m0.5"], True),
    ],
)
def test_whether_a_product_can_have_units(
    target: str, available: list[str], possible: bool
) -> None:
    assert can_be_made(Unit.parse(target), [Unit.parse(text) for text in available]) == possible


def test_units_that_cannot_be_made_are_refused_with_the_constant_that_would() -> None:
    table = from_frame(wind_table(), "v", ["slope"], [Constant.parse("c:1")], "day")
    with pytest.raises(
        ValueError,
        match=r"no product of inputs and constants has the units of v \(m s-1\): add a constant in "
        "m s-1, or one in s to multiply slope by",
    ):
        discover(table)


def test_values_are_in_base_units() -> None:
    frame = wind_table().rename(columns={"v [m s-1]": "v (km h-1)"})
    frame.loc[3, "f [s-1]"] = np.nan
    table = from_frame(frame, "v", ["slope", "f"], group="day", units={"slope": "km s-2"})
    assert table.y[0] == pytest.approx(frame["v (km h-1)"][0] / 3.6)
    assert table.X[0, 0] == pytest.approx(1e3 * frame["slope [m s-2]"][0])
    assert table.left_out == 1 and len(table.y) == 239 and table.X.shape == (2, 239)
    assert Constant.parse("p=10:hPa").value == 1000.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ["slop"]}, "the table has no column slop; it has v, slope, f, day"),
        ({"inputs": []}, "no input is named"),
        ({"inputs": ["f", "v"]}, "v is named twice"),
        ({"group": "week"}, "has no column week"),
        ({"units": {"day": "s"}}, "units are given of day, which is not used"),
        ({"units": {"f": "degC"}}, "'degC', which is not known"),
        ({"constants": [Constant.parse("f:1")]}, "f is named twice"),
    ],
)
def test_what_a_table_lacks_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_frame(wind_table(), **(WIND | changes))  # type: ignore[arg-type]


def test_a_name_in_two_units_is_refused() -> None:
    """The last of the two was taken."""
    frame = wind_table()
    frame["f (h-1)"] = 3600 * frame["f [s-1]"]
    with pytest.raises(ValueError, match=r"has f \[s-1\] and f \(h-1\), which are f twice"):
        from_frame(frame, "v", ["slope", "f"])
    from_frame(frame, "v", ["slope"])


def test_tables_without_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name a CSV file"):
        read_table(tmp_path / "none.csv", "v", ["f"])
    frame = wind_table()
    with pytest.raises(ValueError, match="10 complete rows, and 20 are needed"):
        from_frame(frame[:10], "v", ["f"])
    with pytest.raises(ValueError, match="no numbers in f"):
        from_frame(frame.assign(**{"f [s-1]": "x"}), "v", ["f"])
    marked = frame["f [s-1]"].to_numpy(np.float64).copy()
    marked[3] = -9999
    with pytest.raises(ValueError, match=r"the table has -9999 as f in 1 row\(s\)"):
        from_frame(frame.assign(**{"f [s-1]": marked}), "v", ["f"])
    for text in ("c", "2c:m", "c=x:m"):
        with pytest.raises(ValueError, match="the constant"):
            Constant.parse(text)


def test_groups_are_never_on_both_sides() -> None:
    groups = np.repeat(np.arange(10), 7)
    for seed in range(5):
        away = held_out_rows(groups, 0.25, seed)
        assert not set(groups[away]) & set(groups[~away])
        assert len(set(groups[away])) == 2
    assert all(len(set(folds(groups, 4)[groups == g])) == 1 for g in range(10))
    with pytest.raises(ValueError, match="2 groups, and 3 are needed"):
        held_out_rows(np.array([0, 0, 1]), 0.5, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        held_out_rows(groups, 1.0, 0)


def test_a_formula_is_fitted_counted_and_written() -> None:
    table = wind()
    formula = geostrophic().refitted(table)
    assert formula.constants["c"] == pytest.approx(1.04, rel=1e-8)
    assert r2(table.y, formula.predict(table)) == pytest.approx(1.0)
    assert formula.complexity == 5 and formula.text() == "c*slope/f"
    assert formula.latex() == r"\frac{c slope}{f}"
    given = wind(("c=2:1",))
    assert geostrophic(2.0).refitted(given).constants == {"c": 2.0}
    root = Formula(expression=sympy.sqrt(sympy.Symbol("slope")), constants={})
    assert np.isnan(root.predict(table)).any()
    assert r2(table.y, root.predict(table)) == -np.inf
    dotted = Formula(expression=sympy.Symbol("r652.0") / 2, constants={})
    frame = wind_table().rename(columns={"slope [m s-2]": "r652.0"})
    bands = from_frame(frame, "v", ["r652.0"])
    np.testing.assert_array_equal(dotted.predict(bands), bands.X[0] / 2)


@pytest.mark.parametrize(
    ("text", "condensed", "constants"),
    [
        ("-c*slope/f", "c*slope/f", {"c": -2.0}),
        ("slope*exp(c)/f", "c*slope/f", {"c": np.exp(2.0)}),
        ("-U*c - c*slope/f", "U + c*slope/f", {"U": 6.0, "c": -2.0}),
        ("slope/(f*(c + c**2))", "c*slope/f", {"c": 1 / 6}),
        ("sqrt(U**2 + slope**2/f**2)", "sqrt(U**2 + slope**2/f**2)", {"U": -3.0}),
        ("U*exp(-slope/(U*f))", "U*exp(-slope/(U*f))", {"U": -3.0}),
        ("(slope/f)*log(c) + U", "U + c*slope/f", {"c": np.log(2.0), "U": -3.0}),
        ("slope/f", "slope/f", {}),
        ("-slope*(1 - c)/f", "c*slope/f", {"c": 1.0}),  # sympy writes -(1 - c) out again
    ],
)
def test_constants_that_stand_for_one_are_written_as_one(
    text: str, condensed: str, constants: dict[str, float]
) -> None:
    table = wind(("c:1", "U:m s-1"))
    expression = sympy.sympify(text)
    held = {str(s) for s in expression.free_symbols}
    values = {n: v for n, v in {"c": 2.0, "U": -3.0}.items() if n in held}
    formula = Formula(expression=expression, constants=values)
    found = formula.condensed(table)
    assert found.text() == condensed
    assert found.constants == pytest.approx(constants)
    np.testing.assert_allclose(found.predict(table), formula.predict(table), rtol=1e-9)


def test_the_front_keeps_what_no_simpler_formula_equals_and_the_law_is_held_out() -> None:
    table = wind(noise=0.1)
    away = held_out_rows(table.groups, 0.25, 0)
    training, rest = table.rows(~away), table.rows(away)
    c, slope, f = sympy.symbols("c slope f")
    detour = Formula(expression=c * slope / f + c * slope / f, constants={"c": 1.0})
    longer = Formula(expression=c * c * slope / f, constants={"c": 1.0})
    poor = Formula(expression=slope / f, constants={})
    kept = front([longer, geostrophic(), detour, poor], training, rest)
    assert [k.formula.text() for k in kept] == ["slope/f", "c*slope/f"]
    law = law_of(kept)
    # 1.04 gains less than 0.01 over 1: the shorter formula is the law.
    assert law is kept[0] and law.r2_held_out == pytest.approx(0.99, abs=0.01)
    assert law_of([]) is None
    bad = Candidate(formula=poor, r2_training=0.9, r2_held_out=0.1)
    assert law_of([bad]) is None


def test_baselines_are_scored_on_the_same_rows() -> None:
    rng = np.random.default_rng(1)
    bands = rng.uniform(0.1, 0.6, (200, 4))
    index = (bands[:, 2] - bands[:, 0]) / (bands[:, 2] + bands[:, 0])
    names = ["r550", "r652.0", "r800", "water"]
    frame = pd.DataFrame(bands, columns=names).assign(lma=3 + 2 * index, site=np.arange(200) // 10)
    table = from_frame(frame, "lma", names, group="site")
    assert looks_like_bands(table) == ("r550", "r652.0", "r800")
    away = held_out_rows(table.groups, 0.25, 0)
    scores = baseline_scores(table.rows(~away), table.rows(away), looks_like_bands(table))
    assert scores["two-band index"][1] == pytest.approx(1.0)
    assert 0.8 < scores["ridge"][1] < scores["ridge of logarithms"][1] < 1.0
    assert scores["mean"][1] <= 0
    assert "two-band index" not in baseline_scores(table.rows(~away), table.rows(away), ())
    with pytest.raises(ValueError, match="r900 is named as a band and is no input"):
        discover(table, bands=["r900"])


def test_an_index_law_of_leaves_is_recovered_from_noise() -> None:
    """PROSPECT-D leaves, 1 % noise: the formula that made the trait is the law."""
    from prosail.prospect_d import run_prospect

    rng, names = np.random.default_rng(0), ["r550", "r680", "r705", "r750", "r800"]
    leaves = []
    for _ in range(150):
        cab, car = rng.uniform(10, 70), rng.uniform(3, 15)
        _, reflectance, _ = run_prospect(
            rng.uniform(1.2, 2.2), cab, car, 0.1, 0.012, 0.006, ant=1.0, prospect_version="D"
        )
        leaves.append([reflectance[int(name[1:]) - 400] for name in names])
    frame = pd.DataFrame(leaves, columns=names)
    trait = 30 * (frame["r750"] - frame["r705"]) / (frame["r750"] + frame["r705"])
    frame["trait (ug cm-2)"] = trait * (1 + 0.01 * rng.normal(size=150))
    frame["species"] = np.arange(150) // 15
    table = from_frame(frame, "trait", names, [Constant.parse("c:ug cm-2")], "species")
    away = held_out_rows(table.groups, 0.25, 0)
    training, rest = table.rows(~away), table.rows(away)
    law = law_of(front(index_formulas(training, looks_like_bands(table)), training, rest))
    assert law is not None and law.r2_held_out > 0.99
    assert law.formula.text() in ("c*(r705 - r750)/(r705 + r750)",)
    assert law.formula.constants["c"] == pytest.approx(-30e-5, rel=0.01)
    assert index_formulas(wind(), ()) == []


def results(table: LawTable, candidates: list[Candidate]) -> Laws:
    return Laws(
        candidates=tuple(candidates), law=law_of(candidates), baselines={"ridge": (0.2, 0.1)},
        training=table, held_out=table,
    )  # fmt: skip


def test_results_are_written_whole_and_say_what_was_found(tmp_path: Path) -> None:
    table = wind()
    found = results(table, front([geostrophic()], table, table))
    assert found.summary() == (
        "v = c*slope/f with c = 1.04: R2 1.000 on held-out groups; the best baseline, ridge, has "
        "0.100."
    )
    place = tmp_path / "laws"
    _write(found, place, overwrite=False)
    assert FOLDER.objection(place) is None
    assert sorted(p.name for p in place.iterdir()) == [
        "baselines.csv", "laws.csv", "laws.png", "laws.tex"
    ]  # fmt: skip
    row = pd.read_csv(place / "laws.csv").iloc[0]
    assert row["formula"] == "c*slope/f" and row["constants"] == "c = 1.04" and row["law"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        discover(table, out=place)
    nothing = results(table, [])
    assert nothing.summary().startswith("No law: ")
    _write(nothing, tmp_path / "none", overwrite=False)
    assert list(pd.read_csv(tmp_path / "none" / "laws.csv").columns)[:2] == [
        "complexity",
        "formula",
    ]


def test_a_search_finds_a_law_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = np.random.get_state()[1].copy()
    method = get_start_method(allow_none=True)
    found = discover(
        wind(), seconds=20, patience=2, batch=150, rows=60, out="laws",
        progress=lambda done, total, what: print(what),
    )  # fmt: skip
    assert found.law is not None and found.law.r2_held_out > 0.99
    assert set(capsys.readouterr().out.splitlines()) == {"seconds of search"}
    assert get_start_method(allow_none=True) == method
    assert [path.name for path in tmp_path.iterdir()] == ["laws"]
    np.testing.assert_array_equal(np.random.get_state()[1], state)
