"""Pictures of three colours as images of three bands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sciml_dchag.plants.label_images import LabelImages
from sciml_dchag.plants.prepare.mask_files import read_mask
from sciml_dchag.plants.read.cube_files import find_images, open_cube
from sciml_dchag.plants.read.raw_cube import read_lines

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_a_picture_is_an_image_of_three_bands(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    raw = open_cube(tmp_path / "a.png")
    assert (raw.lines, raw.samples, raw.bands, raw.scale) == (5, 7, 3, 255.0)
    np.testing.assert_array_equal(read_lines(raw, slice(1, 4)), PIXELS[1:4])
    assert "are not" in raw.remarks[0]
    given = open_cube(tmp_path / "a.png", [620, 540, 470])
    assert given.wavelength_nm.tolist() == [620, 540, 470]
    with pytest.raises(ValueError, match="2 wavelengths for the 3 colours"):
        open_cube(tmp_path / "a.png", [620, 540])


def test_a_picture_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=tag)
    raw = open_cube(tmp_path / "a.png")
    assert (raw.lines, raw.samples) == (7, 5)
    np.testing.assert_array_equal(read_lines(raw, slice(0, 7)), np.rot90(PIXELS, -1))


def test_masks_and_label_images_are_turned_upright_too(tmp_path: Path) -> None:
    labels = np.zeros((5, 7), np.uint8)
    labels[0, :3], labels[3:, 5:] = 1, 2
    for orientation, right in ((3, np.rot90(labels, 2)), (6, np.rot90(labels, -1))):
        tag = Image.Exif()
        tag[0x0112] = orientation
        Image.fromarray(labels).save(tmp_path / "a.png", exif=tag)
        found = LabelImages(tmp_path, ["a"], "data.lesions").numbers("a", right.shape)
        np.testing.assert_array_equal(found, right)
        found = read_mask(tmp_path / "a.png", right.shape, [])
        np.testing.assert_array_equal(found, right)


def test_a_label_image_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((5, 7), number, np.uint8)) for number in (1, 2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a\.tif cannot be read \(several pictures\)"):
        LabelImages(tmp_path, ["a"], "data.lesions").numbers("a", (5, 7))


def test_what_is_no_picture_of_three_colours_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="picture of mode L.*save it as RGB"):
        open_cube(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read as picture"):
        open_cube(tmp_path / "b.jpg")


def test_pictures_beside_scans_are_previews(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    assert [path.name for path in find_images([tmp_path]).images] == ["a.png", "b.jpg"]
    assert [path.name for path in find_images([tmp_path / "*.jpg"]).images] == ["b.jpg"]
    np.savez(tmp_path / "scan.npz", cube=np.ones((2, 2, 4)), wavelength=np.arange(4) + 500.0)
    assert [path.name for path in find_images([tmp_path]).images] == ["scan.npz"]
    assert [path.name for path in find_images([tmp_path / "b.jpg"]).images] == ["b.jpg"]
