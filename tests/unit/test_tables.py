"""Tables of users: keys are text, and numbers are read in every spelling."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sciml_dchag.files.tables import read_text_table, refuse_marks, with_numbers
from sciml_dchag.plants.prepare.splits import Split, assign, read_table
from sciml_dchag.plants.traits.plant_source import PlantSource
from sciml_dchag.plants.traits.probe import _groups
from sciml_dchag.plants.traits.traits import Traits, read_traits

IMAGES = [Path("001.raw"), Path("002.raw")]


def table(path: Path, text: str) -> pd.DataFrame:
    path.write_bytes(text.encode("utf-8"))
    return read_table(path, IMAGES, ["001", "002"])


def test_keys_and_codes_stay_text(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", "file,genotype,plot,plant_id\n001,NA,007,1\n002,None,012,2\n")
    assert list(found["genotype"]) == ["NA", "None"] and list(found["plot"]) == ["007", "012"]
    assert list(found["plant_id"]) == ["1", "2"]
    numbers = table(tmp_path / "t.csv", "file,n,x,small\n001,3,NA,1e-05\n002,4,0.5,0.00002\n")
    assert list(numbers["n"]) == [3, 4] and numbers["n"].dtype == "int64"
    assert pd.isna(numbers["x"].iloc[0]) and list(numbers["small"]) == [1e-05, 2e-05]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_decimal_commas_where_the_comma_does_not_separate(tmp_path: Path, separator: str) -> None:
    text = "file;LMA;note\n002;1,5;a,b\n001;-0,25;c\n".replace(";", separator)
    found = table(tmp_path / "t.csv", "\ufeff" + text)
    assert list(found["LMA"]) == [-0.25, 1.5] and list(found["note"]) == ["c", "a,b"]


def test_tables_as_spreadsheets_save_them(tmp_path: Path) -> None:
    plain = "file,LMA\n001,1.5\n002,2\n"
    for text in (
        plain.replace("\n", ",,\n"), "file,LMA\n001,1.5,\n\n002,2,,\n,,\n", plain + ",\n",
        "sep=;\r\nfile;LMA\r\n001;1,5\r\n002;2\r\n", plain.replace("\n", "\r"),
    ):  # fmt: skip
        assert list(table(tmp_path / "t.csv", text)["LMA"]) == [1.5, 2], text
    (tmp_path / "u.csv").write_text("file,n\nGr\u00fcn 3,1\n", encoding="utf-8")
    assert list(read_table(tmp_path / "u.csv", [Path("Gru\u0308n 3.raw")], ["Grun_3"])["n"]) == [1]
    with pytest.raises(ValueError, match="row 2 has 3 cells and the first one 2"):
        table(tmp_path / "t.csv", "file,n,\n001,1,2\n002,1,\n")
    (tmp_path / "x.csv").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError, match="no table of text, as of Excel: save it as CSV"):
        read_text_table(tmp_path / "x.csv")


def test_a_column_split_in_other_capitals(tmp_path: Path) -> None:
    known = table(tmp_path / "t.csv", "file,Split\n001,Train\n002,VALIDATION\n")
    assert assign(known, Split.parse("1"), None, 0, "t.csv") == (["train", "validation"], [])
    with pytest.raises(ValueError, match="holds 'evaluate': write train, validation or test"):
        assign(names("a", split=["evaluate"]), Split.parse("1"), None, 0, "t.csv")
    with pytest.raises(ValueError, match="two columns 'split'"):
        table(tmp_path / "t.csv", "file,Split,split\n001,train,test\n002,test,train\n")


def test_traits_of_images_with_blanks_and_umlauts(tmp_path: Path) -> None:
    plants = pd.DataFrame({"cube": ["Grun_3", "b.1"], "plant": [1, 1]})
    (tmp_path / "t.csv").write_text("cube,LMA,N\nGr\u00fcn 3.raw,1,<1\nx/b.1.hdr,2,3\n")
    found = read_traits(tmp_path / "t.csv", plants)
    assert list(found.table["cube"]) == ["Grun_3", "b.1"]
    with pytest.warns(UserWarning, match="holds '<1' in the column 'N', which is left out"):
        assert found.choose([], None) == ["LMA"]


def test_tables_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match="two columns 'a'"):
        read_text_table(path)
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(ValueError, match="row 2 has 3 cells and the first one 2"):
        read_text_table(path)
    path.write_bytes("pot;Höhe\n1;2\n".encode("latin-1"))
    assert list(with_numbers(read_text_table(path), path, ())["Höhe"]) == [2]


def test_images_of_one_name_are_told_by_their_folders(tmp_path: Path) -> None:
    images = [Path("d1/x.raw"), Path("d2/x.raw")]
    (tmp_path / "t.csv").write_text("file,n\nd2/x.raw,2\nd1/x,1\n")
    assert list(read_table(tmp_path / "t.csv", images, ["d1_x", "d2_x"])["n"]) == [1, 2]
    (tmp_path / "t.csv").write_text("file,n\nx,2\n")
    with pytest.raises(ValueError, match="has no row of x.raw, x.raw"):
        read_table(tmp_path / "t.csv", images, ["d1_x", "d2_x"])


def names(*images: str, **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(images, name="cube"))


def test_images_of_a_plant_are_for_one_purpose() -> None:
    days = [f"pot{p}_2024-05-{d:02d}" for p in range(6) for d in (1, 8, 15)]
    drawn, _ = assign(names(*days), Split.parse("0.5/0.2/0.3"), None, 0, None)
    for pot in range(6):
        assert len({drawn[i] for i, day in enumerate(days) if day.startswith(f"pot{pot}_")}) == 1
    assert set(drawn) == {"train", "validation", "test"}
    by_id = names(*"abcdef", plant_id=["1", "2", "3"] * 2)
    drawn, _ = assign(by_id, Split.parse("0.4/0.3/0.3"), None, 1, "t.csv")
    assert drawn[:3] == drawn[3:] and len(set(drawn)) == 3


def test_an_empty_part_of_a_split_is_said() -> None:
    drawn, (said,) = assign(names("a", "b", "c"), Split.parse("0.8/0.1/0.1"), None, 0, None)
    assert drawn == ["train"] * 3
    assert "3 images give 3 for training, 0 for validation and 0 for test" in said
    assert not assign(names("a", "b", "c"), Split.parse("1"), None, 0, None)[1]


def test_traits_are_joined_by_plant_and_date(tmp_path: Path) -> None:
    plants = pd.DataFrame(
        {"cube": ["x", "y", "z"], "plant": [1, 1, 2], "plant_id": ["07", "07", "08"],
         "date": ["2024-05-01", "2024-05-08", "2024-05-01"]}
    )  # fmt: skip
    path = tmp_path / "traits.csv"
    path.write_text("plant_id;date;LMA\n07;2024-05-08;1,5\n08;2024-05-01;2,5\n07;2024-05-01;3\n")
    found = read_traits(path, plants)
    assert list(zip(found.table["cube"], found.table["plant"], strict=True)) == [
        ("y", 1), ("z", 2), ("x", 1),
    ]  # fmt: skip
    assert found.choose([], None) == ["LMA"] and list(found.values("LMA")) == [1.5, 2.5, 3.0]
    path.write_text("plant_id;LMA\n07;1\n")
    with pytest.raises(ValueError, match="plant_id 07 is that of several plants"):
        read_traits(path, plants)


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]
"""Excel writes the first two; the others come from text editors and older programs."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_in_the_encodings_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("Bild\tHöhe (mm)\r\n001\t1,5\r\n002\t2,25\r\n".encode(encoding))
    assert list(read_table(path, IMAGES, ["001", "002"])["Höhe (mm)"]) == [1.5, 2.25]
    path.write_bytes("Cube;Höhe, trocken\n001;1,5\n002;2,25\n".encode(encoding))
    plants = pd.DataFrame({"cube": ["001", "002"], "plant": [1, 1]})
    found = read_traits(path, plants)
    assert found.choose([], None) == ["Höhe, trocken"]
    assert list(found.values("Höhe, trocken")) == [1.5, 2.25]


@pytest.mark.parametrize(
    "names",
    [
        "file,Plant",
        "Cube,plant",
        "IMAGE,Plant",
        "File Name,plant",
        "Name,plant",
        "Bild,Plant",
        "Plant ID,Date",
    ],
)
def test_columns_of_keys_in_other_words_and_capitals(tmp_path: Path, names: str) -> None:
    plants = pd.DataFrame(
        {"cube": ["a", "b"], "plant": [1, 2], "PlantID": ["a", "b"], "date": ["1", "2"]}
    )
    (tmp_path / "t.csv").write_text(f"{names},LMA\nb,2,1.5\na,1,0.5\n")
    found = read_traits(tmp_path / "t.csv", plants)
    assert list(zip(found.table["cube"], found.table["plant"], strict=True)) == [("b", 2), ("a", 1)]
    assert found.keys == ["cube", "plant"] and found.choose([], None) == ["LMA"]


def test_the_column_of_keys_is_the_one_that_names_images(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", "name,file\nB73,001.raw\nMo17,002.raw\n")
    assert list(found["name"]) == ["B73", "Mo17"]
    plants = pd.DataFrame({"cube": ["001", "002"], "plant": [1, 1], "plant_id": ["A1", "A2"]})
    (tmp_path / "t.csv").write_text("file,plant_id,LMA\nphoto1.jpg,A2,1.5\nphoto2.jpg,A1,0.5\n")
    assert list(read_traits(tmp_path / "t.csv", plants).table["cube"]) == ["002", "001"]


def test_decimal_commas_in_quotes_and_thousands(tmp_path: Path) -> None:
    found = table(tmp_path / "t.csv", 'file,LMA,n\n001,"1,5","1,500"\n002,"0,125","2,250"\n')
    assert list(found["LMA"]) == [1.5, 0.125] and list(found["n"]) == ["1,500", "2,250"]
    plants = pd.DataFrame({"cube": ["001", "002"], "plant": [1, 1]})
    with pytest.warns(UserWarning, match="holds '1,500' in the column 'n', which is left out"):
        assert read_traits(tmp_path / "t.csv", plants).choose([], None) == ["LMA"]


def test_rows_of_one_plant_stay_together_without_being_asked() -> None:
    """By identity, or by number in images whose names differ in a date."""
    cubes = ["a_2024-05-01", "a_2024-05-08", "b_2024-05-01", "b_2024-05-08"]
    plants = pd.DataFrame({"cube": cubes, "plant": [1, 1, 1, 1]})

    def groups(known: pd.DataFrame) -> list[str]:
        traits = Traits(path=Path("t.csv"), table=plants.assign(LMA=1.0), keys=["cube", "plant"])
        source = PlantSource(path=Path("s.zarr"), plants=known, embeddings=None, store=None,
                             attribution="", simulated=False)  # fmt: skip
        return list(_groups(traits, source, None))

    assert groups(plants) == ["a plant 1", "a plant 1", "b plant 1", "b plant 1"]
    by_id = plants.assign(**{"Plant ID": ["07", "08", "07", "08"]})
    assert groups(by_id) == ["07", "08", "07", "08"]


def test_a_packed_table_is_read_and_what_is_damaged_or_vast_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"a;b\n1,5;2\n"))
    table = with_numbers(read_text_table(path), path, [])
    assert table.to_dict("list") == {"a": [1.5], "b": [2]}
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(ValueError, match="damaged gzip file"):
        read_text_table(path)
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(257):
            file.write(bytes(2**20))
    with pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read_text_table(path)


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        ("1.5,-9999,2.5,1,-9999", "-9999"),
        ("55,61,-99,48", "-99"),
        ("-3,2,-999,0.5", "-999"),
        ("12,15,9999,11", "9999"),
    ],
)
def test_marks_of_what_was_not_measured(cells: str, mark: str, tmp_path: Path) -> None:
    numbers = cells.split(",")
    names = [f"p{number}" for number in range(len(numbers))]
    plants = pd.DataFrame({"cube": names, "plant": [1] * len(names)})
    rows = "".join(f"{name},{number}\n" for name, number in zip(names, numbers, strict=True))
    (tmp_path / "t.csv").write_text(f"cube,LMA\n{rows}")
    found = read_traits(tmp_path / "t.csv", plants)
    times = numbers.count(mark)
    with pytest.raises(ValueError, match=rf"has {mark} as the trait 'LMA' in {times} row\(s\)"):
        found.values("LMA")


@pytest.mark.parametrize(
    "values",
    [
        [-99.0, -80.0, -120.0, 10.0],
        [999.0, 870.0, 1020.0],
        [9999.0, 2000.0, 5000.0],
        [-999.0],
        [np.nan, 1.0],
        [999.0, 0.0, 500.0],
    ],
)
def test_numbers_like_the_others_are_no_marks(values: list[float]) -> None:
    refuse_marks(np.array(values), "x", "t.csv")
