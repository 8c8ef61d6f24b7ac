"""`indices` and `probe` as a plant scientist calls them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from plant_stores import ATTRIBUTION, scene, write_store

from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.plants.traits.embeddings import write_embeddings
from sciml_dchag.plants.traits.plant_means import plant_spectra

Call = Callable[..., Result]
Refused = Callable[[Result], str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand where a store of six trays of two plants lies, their embeddings and their traits."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    plants = pd.DataFrame(
        {"cube": np.repeat([f"tray{n}" for n in range(6)], 2), "plant": [1, 2] * 6,
         "red_edge_nm": rng.uniform(705, 725, 12), "green": rng.uniform(0.05, 0.15, 12),
         "plateau": 0.5}
    )  # fmt: skip
    groups = plants.groupby("cube", sort=False)
    path = write_store(Path("trays.zarr"), {str(cube): scene(rows) for cube, rows in groups})
    store = CubeStore.open(path)
    spectra = plant_spectra(store)
    write_embeddings(
        "embeddings", spectra[["cube", "plant"]].assign(y=9.5, x=9.5),
        spectra[list(store.channels.names)].to_numpy()[:, ::20], table=store.table,
        attrs={"attribution": ATTRIBUTION, "simulated": 1, "store": "trays.zarr"},
    )  # fmt: skip
    plants["chlorophyll (ug cm-2)"] = 2 * (plants["red_edge_nm"] - 690)
    plants.drop(columns=["red_edge_nm", "green", "plateau"]).to_csv("traits.csv", index=False)
    return tmp_path


def test_indices_writes_maps_pictures_and_tables(work: Path, call: Call) -> None:
    result = call("indices", "trays.zarr")
    assert result.exit_code == 0, result.output
    assert "Left out: WI needs a band within 5 nm of 970 nm" in result.output
    assert "Table of 12 plants: trays_indices/indices.csv" in result.output
    found = {str(p.relative_to("trays_indices")) for p in Path("trays_indices").rglob("*.*")}
    assert found == {
        "indices.csv", "indices_units.csv",
        *(f"maps/tray{n}.nc" for n in range(6)), *(f"pictures/tray{n}.png" for n in range(6)),
    }  # fmt: skip
    again = call("indices", "trays.zarr", "--index", "PRI", "--overwrite")
    assert again.exit_code == 0 and "Left out" not in again.output
    columns = list(pd.read_csv("trays_indices/indices.csv").columns)
    assert [name for name in columns if name.endswith("_mean")] == ["PRI_mean"]


def test_probe_prints_the_scores_that_it_writes(work: Path, call: Call) -> None:
    result = call("probe", "embeddings", "traits.csv", "--folds", "3", "--out", "probed")
    assert result.exit_code == 0, result.output
    scores = pd.read_csv("probed/scores.csv").set_index(["features", "regressor"])
    assert scores.loc[("mean spectrum", "pls"), "r2"] > 0.8
    for (features, regressor), row in scores.iterrows():
        line = next(
            line for line in result.output.splitlines() if features in line and regressor in line
        )
        assert f"{row['r2']:.3f}" in line and "ug cm-2" in line
    assert Path("probed/predicted_chlorophyll (ug cm-2).png").is_file()
    same = call("probe", "embeddings", "traits.csv", "--folds", "3", "--out", "again")
    assert same.exit_code == 0
    assert Path("again/scores.csv").read_text() == Path("probed/scores.csv").read_text()


def test_probe_of_a_store_is_applied_to_plants_that_were_not_measured(
    work: Path, call: Call, refused: Refused
) -> None:
    scored = call("probe", "score", "trays.zarr", "traits.csv", "--folds", "3", "--out", "probed")
    assert scored.exit_code == 0, scored.output
    assert "probe apply probed STORE predicted.csv" in scored.output
    words = ("probe", "apply", "probed", "trays.zarr", "predicted.csv")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "Table of 12 plants: predicted.csv" in done.output and "R2 0." in done.output
    table = pd.read_csv("predicted.csv")
    trait = "chlorophyll (ug cm-2)"
    assert list(table["cube"].unique()) == [f"tray{n}" for n in range(6)]
    assert (table[f"{trait} low"] <= table[trait]).all()
    assert "replace it with `--overwrite`" in refused(call(*words))
    assert call(*words, "--overwrite").exit_code == 0
    assert "has no model of 'height'" in refused(call(*words, "--overwrite", "--trait", "height"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("indices", "gone.zarr"), "There is no store at gone.zarr"),
        (("indices", "embeddings"), "where a plant store (sciml-dchag-cubes-1) is needed"),
        (("indices", "trays.zarr", "--index", "WI"), "WI needs a band within 5 nm of 970 nm"),
        (("indices", "trays.zarr", "--index", "NVDI"), "did you mean NDVI"),
        (("indices", "trays.zarr", "--out", "embeddings"), "embeddings exists"),
        (("probe", "gone", "traits.csv"), "There are no embeddings at gone"),
        (("probe", "trays_indices", "traits.csv"), "There are no embeddings at trays_indices"),
        (("probe", "apply", "embeddings", "trays.zarr", "o.csv"), "There are no fitted models of"),
        (("probe", "embeddings", "gone.csv"), "There is no table of traits at gone.csv"),
        (("probe", "embeddings", "traits.csv", "--trait", "chlorophyl"), "did you mean 'chloro"),
        (("probe", "embeddings", "traits.csv", "--group", "plot"), "a column 'plot' to group by"),
        (("probe", "embeddings", "traits.csv", "--folds", "7"), "7 folds need 14"),
        (("probe", "embeddings", "traits.csv", "--store", "gone.zarr"), "no store at gone.zarr"),
        (("probe", "embeddings", "traits.csv", "--out", "trays.zarr"), "trays.zarr exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    words: tuple[str, ...], why: str, work: Path, call: Call, refused: Refused,
    changed_files: Callable[[Path], Callable[[], set[str]]],
) -> None:  # fmt: skip
    changes = changed_files(work)
    assert why in refused(call(*words))
    assert not changes()
