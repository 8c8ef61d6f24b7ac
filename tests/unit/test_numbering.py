"""Numbers of plants that last, and masks and label images read for what they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sciml_dchag.plants.prepare.mask_files import read_labels
from sciml_dchag.plants.prepare.numbering import by_pots, in_series, read_pots, row_by_row

POTS = [(16.0 + 32 * row, 16.0 + 32 * column) for row in range(2) for column in range(3)]


def test_rows_with_a_tolerance() -> None:
    shifted = [(y + (1 if i < 3 else -1) * (-1) ** i, x - i) for i, (y, x) in enumerate(POTS)]
    order = [4, 0, 5, 2, 1, 3]
    numbers = row_by_row([shifted[i] for i in order], [10.0] * 6)
    assert numbers == [i + 1 for i in order] and row_by_row([], []) == []


def test_a_series_keeps_places_when_plants_die_and_appear() -> None:
    images = {
        "d1": [POTS[i] for i in (0, 2, 3, 4, 5)],
        "d2": [(y + 2, x - 3) for y, x in POTS],
        "d3": [POTS[i] for i in (5, 1)],
        "d4": [],
    }
    found = in_series(images)
    assert found is not None and found["d4"] == []
    place = {site: i for site, i in zip(found["d2"], range(6), strict=True)}
    assert [place[site] for site in found["d1"]] == [0, 2, 3, 4, 5]
    assert [place[site] for site in found["d3"]] == [5, 1]


@pytest.mark.parametrize("shift", [(0, 17), (18, -9), (-16, -16), (3, 2)])
def test_a_tray_that_is_put_down_elsewhere_keeps_its_plants(shift: tuple[int, int]) -> None:
    """Further than half way to the next pot, where each place is nearer to another plant's."""
    jitter = np.random.default_rng(0).uniform(-2, 2, (6, 2))
    moved = [(y + shift[0] + j[0], x + shift[1] + j[1])
             for (y, x), j in zip(POTS, jitter, strict=True)]  # fmt: skip
    for alive in (range(6), (0, 1, 2, 4, 5)):
        found = in_series({"d1": POTS, "d2": [moved[i] for i in alive]})
        assert found is not None and found["d2"] == list(alive)


def test_images_of_other_plants_are_no_series() -> None:
    assert in_series({"a": [(10.0, 10.0)], "b": [(30.0, 40.0)]}) is None
    assert in_series({"a": POTS}) is None
    rng = np.random.default_rng(0)
    scattered = {str(i): [(y, x) for y, x in rng.uniform(0, 200, (3, 2))] for i in range(6)}
    assert in_series(scattered) is None


def test_pots_number_what_grows_in_them(tmp_path: Path) -> None:
    objects = np.zeros((40, 60), np.int32)
    objects[5:15, 5:15] = 1
    objects[8, 15:22] = 1  # a leaf over the border
    objects[25:35, 25:58] = 2  # two that touch
    pots = read_pots("2x3", [])
    assert pots is not None
    plants, beside = by_pots(objects, pots.at((40, 60)))
    assert beside == 0 and (plants[8, 20:22] == 1).all()
    assert (plants[30, 25:40] == 5).all() and (plants[30, 40:58] == 6).all()
    labels = np.zeros((40, 60), np.uint8)
    labels[:20, :20], labels[20:, 20:] = 7, 9
    Image.fromarray(labels).save(tmp_path / "pots.png")
    of_file = read_pots(str(tmp_path / "pots.png"), [])
    assert of_file is not None
    plants, beside = by_pots(objects, of_file.at((40, 60)))
    assert set(np.unique(plants)) == {0, 7, 9} and beside == 0
    objects[25:35, 2:10] = 3
    assert by_pots(objects, labels)[1] == 80
    with pytest.raises(ValueError, match=r"pots.png has 40 x 60 pixels and the image 41 x 60"):
        of_file.at((41, 60))
    with pytest.raises(FileNotFoundError, match="neither ROWSxCOLUMNS"):
        read_pots("two", [])
    with pytest.raises(ValueError, match="no pots"):
        read_pots("0x3", [])


LABELS = np.zeros((20, 30), np.uint8)
LABELS[2:8, 2:8], LABELS[10:18, 15:28] = 2, 5


def test_palettes_labels_and_one_bit(tmp_path: Path) -> None:
    palette = Image.new("P", (30, 20))
    palette.putdata(LABELS.ravel().tolist())
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0, 1, 1, 1, 2, 2, 2, 0, 200, 0])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png", []), LABELS)
    for suffix in ("png", "tif"):
        Image.fromarray(LABELS > 0).save(tmp_path / f"b.{suffix}")
        np.testing.assert_array_equal(read_labels(tmp_path / f"b.{suffix}", []), LABELS > 0)
    Image.fromarray(LABELS.astype(np.uint16) * 100).save(tmp_path / "w.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "w.png", []), 100 * LABELS.astype(int))
    one = np.where(LABELS == 5, 3, 0).astype(np.uint8)  # the only one alive keeps its number
    Image.fromarray(one).save(tmp_path / "o.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "o.png", []), one)


def test_grey_edges_are_no_plants(tmp_path: Path) -> None:
    large = Image.fromarray(np.where(LABELS > 0, 255, 0).astype(np.uint8)).resize((120, 80))
    small = large.resize((30, 20), Image.Resampling.BICUBIC)
    assert len(np.unique(np.array(small))) > 6
    small.save(tmp_path / "a.png")
    drawings: list[str] = []
    found = read_labels(tmp_path / "a.png", drawings)
    assert drawings == ["a.png"]
    assert set(np.unique(found)) == {0, 1}
    assert ((found > 0) == (LABELS > 0)).mean() > 0.97
    two = np.where(LABELS == 2, 100, np.where(LABELS == 5, 200, 0)).astype(np.uint8)
    smooth = Image.fromarray(two).resize((120, 80), Image.Resampling.BICUBIC)
    smooth.resize((45, 30), Image.Resampling.BICUBIC).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="edges of a smoothed drawing"):
        read_labels(tmp_path / "b.png", [])
    Image.fromarray(np.stack([LABELS, 0 * LABELS, LABELS // 2], axis=2)).save(tmp_path / "c.png")
    with pytest.raises(ValueError, match="20 x 30 x 3 values, where one number a pixel"):
        read_labels(tmp_path / "c.png", [])


@pytest.mark.parametrize("blur", [0.5, 1, 2, 3])
def test_blurred_drawings_are_one_plant_or_refused(blur: float, tmp_path: Path) -> None:
    labels = np.kron(LABELS, np.ones((4, 4), np.uint8))
    drawn = Image.fromarray(np.where(labels > 0, 255, 0).astype(np.uint8))
    drawn.filter(ImageFilter.GaussianBlur(blur)).save(tmp_path / "a.png")
    drawings: list[str] = []
    found = read_labels(tmp_path / "a.png", drawings)
    assert drawings == ["a.png"]
    assert set(np.unique(found)) == {0, 1} and ((found > 0) == (labels > 0)).mean() > 0.98
    several = Image.fromarray(40 * labels).filter(ImageFilter.GaussianBlur(blur))
    several.save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="edges of a smoothed drawing"):
        read_labels(tmp_path / "b.png", [])


def test_many_plants_that_touch_are_no_gradient(tmp_path: Path) -> None:
    touching = 1 + np.arange(20, dtype=np.uint8).reshape(4, 5)
    lines = np.zeros((80, 100), np.uint8)
    lines[5:75:7] = 1 + np.arange(10, dtype=np.uint8)[:, None]
    for labels in (np.kron(touching, np.ones((6, 6), np.uint8)), lines):
        Image.fromarray(labels).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "x.png", []), labels)


def test_pictures_in_colours_and_transparency_are_read(tmp_path: Path) -> None:
    plants = np.kron(LABELS > 0, np.ones((4, 4), bool))
    cut_out = np.full((*plants.shape, 4), 255, np.uint8)
    cut_out[..., 3] = 255 * plants
    green = np.zeros_like(cut_out)
    green[plants] = (0, 200, 0, 255)
    opaque = green.copy()
    opaque[..., 3] = 255
    for number, drawn in enumerate((cut_out, green, opaque, opaque[..., :3])):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.ascontiguousarray(drawn)).save(path)
        np.testing.assert_array_equal(read_labels(path, []), plants)


def test_losses_of_a_jpeg_are_no_plants(tmp_path: Path) -> None:
    plants = np.kron(LABELS > 0, np.ones((8, 8), bool))
    Image.fromarray(np.where(plants, 255, 0).astype(np.uint8)).save(tmp_path / "a.jpg", quality=60)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.jpg", []), plants)
    labels = np.kron(LABELS, np.ones((8, 8), int)).astype(np.uint8) * 40
    Image.fromarray(labels).save(tmp_path / "b.jpg", quality=60)
    with pytest.raises(ValueError, match="compressed with losses"):
        read_labels(tmp_path / "b.jpg", [])


def grid_of_labels(lines: int, columns: int, gap: int, number: int) -> np.ndarray:
    """Plants of some pixels each, in rows."""
    labels = np.zeros((30, 48), np.uint8)
    for n in range(number):
        y, x = (lines + gap) * (n // 8), (columns + gap) * (n % 8)
        labels[y : y + lines, x : x + columns] = n + 1
    return labels


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize(("lines", "columns"), [(2, 4), (1, 2), (1, 1), (2, 2)])
def test_plants_of_few_pixels_are_no_grey_edges(
    lines: int, columns: int, gap: int, tmp_path: Path
) -> None:
    small = grid_of_labels(lines, columns, gap, 60)
    beside = np.pad(small, ((0, 20), (0, 0)))
    beside[35:48, 5:40] = 61  # a large one, whose edges they are not
    for labels in (small, beside, small[:2, :4].copy(), np.arange(1, 9, dtype=np.uint8)[None]):
        Image.fromarray(labels).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_labels(tmp_path / "x.png", []), labels)
