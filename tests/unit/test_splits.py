"""What images are for: drawn by image or group, or cut along x with a guard band."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sciml_dchag.plants.prepare.splits import Split, assign, name_images, read_table, safe_name

IMAGES = [Path(f"scans/plant_{i:02d}.raw") for i in range(20)]
NAMES = name_images(IMAGES)


def known(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(NAMES, name="cube"))


def test_a_draw_is_seeded_and_has_the_parts_asked_for() -> None:
    split = Split.parse("0.7/0.1/0.2")
    drawn, said = assign(known(), split, None, 3, None)
    assert not said
    assert [drawn.count(part) for part in ("train", "validation", "test")] == [14, 2, 4]
    assert drawn == assign(known(), split, None, 3, None)[0]
    assert drawn != assign(known(), split, None, 4, None)[0]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_images_always_leave_one_for_training(number: int) -> None:
    drawn = Split.parse("0.2/0.4/0.4").draw(NAMES[:number], 0)
    assert "train" in drawn


def test_groups_stay_together() -> None:
    genotype = [f"G{i % 5}" for i in range(20)]
    drawn, _ = assign(known(genotype=genotype), Split.parse("0.6/0.2/0.2"), "genotype", 0, "t.csv")
    for part in ("train", "validation", "test"):
        assert part in drawn
    purposes = {g: {d for d, h in zip(drawn, genotype, strict=True) if h == g} for g in genotype}
    assert all(len(of_group) == 1 for of_group in purposes.values())
    with pytest.raises(ValueError, match="needs such a column"):
        assign(known(genotype=genotype), Split.parse("0.8"), "plot", 0, "t.csv")
    with pytest.raises(ValueError, match="has no genotype of plant_00"):
        assign(known(genotype=[None, *genotype[1:]]), Split.parse("0.8"), "genotype", 0, "t.csv")


def test_a_column_split_goes_before() -> None:
    words = ["test"] * 3 + ["train"] * 17
    assert assign(known(split=words), Split.parse("0.5"), None, 0, "t.csv") == (words, [])
    with pytest.raises(ValueError, match="'val'.*train, validation or test"):
        assign(known(split=["val", *words[1:]]), Split.parse("0.5"), None, 0, "t.csv")


def test_an_image_is_cut_with_a_guard_between() -> None:
    parts = Split.parse("spatial:0.62,guard=4").cut(43, "kernel")
    assert parts == {"train": slice(0, 24), "test": slice(28, 43)}
    three = Split.parse("spatial:0.5/0.2/0.3,guard=2").cut(44, "kernel")
    assert three == {"train": slice(0, 20), "validation": slice(22, 30), "test": slice(32, 44)}
    with pytest.raises(ValueError, match="5 columns wide, too few"):
        Split.parse("spatial:0.5,guard=4").cut(5, "kernel")


@pytest.mark.parametrize(
    "text", ["", "half", "0.5/0.5", "0.5/0.2/0.2", "0/0.5/0.5", "1.5", "0.8,guard=3", "spatial:x"]
)
def test_splits_that_are_not_understood(text: str) -> None:
    with pytest.raises(ValueError, match=r"0.8/0.1/0.1.*spatial:0.62,guard=4"):
        Split.parse(text)


def test_names_are_safe_and_differ() -> None:
    assert safe_name(Path("a/Pappel Nr. 3 (früh).raw")) == "Pappel_Nr._3_fruh_"
    assert safe_name(Path("../..hidden.raw")) == "hidden" and safe_name(Path("日本.raw")) == "image"
    assert name_images([Path("a/x.raw"), Path("b/X.dat"), Path("y.raw")]) == ["a_x", "b_X", "y"]
    scans = [Path(f"data/{day}/capture/scan.raw") for day in ("d1", "d2")]
    assert name_images(scans) == ["d1_capture_scan", "d2_capture_scan"]
    assert name_images([Path("a/x.tif"), Path("a/x.mat")]) == ["a_x_tif", "a_x_mat"]
    with pytest.raises(ValueError, match=r"both be called 'a_x__raw'"):
        name_images([Path("a/x_.raw"), Path("a/x .raw")])


def test_a_table_is_keyed_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "plants.csv"
    path.write_text(
        "genotype;file;plot;date\n"
        "Mo17;plant_01;2;2024-05-01\nB73;plant_00.raw;1;\nB97;elsewhere.raw;9;\nW22;plant_02.hdr;3;x\n"
    )
    table = read_table(path, IMAGES[:3], NAMES[:3])
    assert list(table.index) == ["plant_00", "plant_01", "plant_02"]
    assert list(table["genotype"]) == ["B73", "Mo17", "W22"] and list(table["plot"]) == [1, 2, 3]
    assert list(table.columns) == ["genotype", "plot", "date"] and pd.isna(table["date"].iloc[0])
    with pytest.raises(ValueError, match=r"no row of plant_03.raw, plant_04.raw.*and 12 others"):
        read_table(path, IMAGES, NAMES)


def test_tables_that_do_not_do(tmp_path: Path) -> None:
    path = tmp_path / "plants.csv"
    with pytest.raises(FileNotFoundError, match="no table"):
        read_table(path, IMAGES[:1], NAMES[:1])
    path.write_text("")
    with pytest.raises(ValueError, match="is no table"):
        read_table(path, IMAGES[:1], NAMES[:1])
    for twice in ("plant_00\nplant_00", "plant_00\nplant_00.raw"):
        path.write_text(f"file\n{twice}\n")
        with pytest.raises(ValueError, match="twice"):
            read_table(path, IMAGES[:1], NAMES[:1])
    path.write_text("file,wavelength\nplant_00,3\n")
    with pytest.raises(ValueError, match="'wavelength'.*rename"):
        read_table(path, IMAGES[:1], NAMES[:1])


def test_parts_do_not_touch_whatever_the_width() -> None:
    split = Split.parse("spatial:0.6/0.1/0.3,guard=3")
    for columns in range(16, 200):
        parts = list(split.cut(columns, "x").values())
        gaps = [b.start - a.stop for a, b in itertools.pairwise(parts)]
        assert gaps == [3, 3] and parts[0].start == 0 and parts[-1].stop == columns
        assert np.sum([p.stop - p.start for p in parts]) == columns - 6
