"""Checksums: what is missing or changed in a store or a list is an error that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr
from test_reconstruction import make_store

from sciml_dchag.files import checksums
from sciml_dchag.files.checksums import LIST, damages, part_of, read_list, require_whole, seal
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.weather.scores.layouts import open_forecasts
from sciml_dchag.weather.store.climatology import compute_climatology
from sciml_dchag.weather.store.statistics import compute_statistics, read_statistics
from sciml_dchag.weather.store.store import Store


def test_crc32c_of_the_check_value() -> None:
    assert checksums.crc_of(b"123456789") == 0xE3069283  # RFC 3720, the CRC catalogue's check
    assert checksums.crc_of(np.frombuffer(b"123456789", np.uint8)) == google_crc32c.value(
        b"123456789"
    )


def flip(file: Path, place: int, bit: int = 1) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= bit
    file.write_bytes(content)


def state_of(times: int) -> xr.DataArray:
    values = np.random.default_rng(0).normal(280, 9, (times, 20, 8, 16)).astype(np.float32)
    values[1, 3] = np.nan  # a chunk of which a field is missing
    values[2] = np.nan  # chunks of nothing but the fill value
    levels = [50, 100, 150, 200, 250, 300, 400, 500, 600, 700]
    return xr.DataArray(
        values,
        dims=("time", "channel", "latitude", "longitude"),
        coords={
            "time": np.datetime64("2017-01-01", "ns") + np.arange(times) * np.timedelta64(6, "h"),
            "channel": [f"{v}{level}" for v in "tz" for level in levels],
            "latitude": -90 + 22.5 * (np.arange(8) + 0.5),
            "longitude": 22.5 * np.arange(16),
        },
    )


@pytest.fixture
def weather(tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of six times in two files, with statistics and a climatology."""
    monkeypatch.setattr("sciml_dchag.weather.store.layout.BLOCK_BYTES", 4 * 20 * 8 * 16 * 4)

    def finish(place: Path) -> None:
        compute_statistics(place)
        compute_climatology(place)

    return write(state_of(6), tmp_path / "w.zarr", finish=finish)


def test_every_chunk_is_written_and_read_alike_by_zarr_and_us(weather: Path) -> None:
    store, array = Store.open(weather), zarr.open_array(weather / "state", mode="r")
    np.testing.assert_array_equal(store.read(slice(None)), state_of(6).values)
    np.testing.assert_array_equal(array[:], state_of(6).values)
    # The fields that are missing are written as such, in chunks of their own.
    assert all(store._shards._index(0)[2, :, 1] == 10 * 8 * 16 * 4 + 4)  # type: ignore[union-attr]
    assert not list(damages(weather))
    listed = {part.path for part in read_list(weather) or ()}
    there = {p.relative_to(weather).as_posix() for p in weather.rglob("*") if p.is_file()}
    assert listed == there - {LIST}


def test_any_run_of_channels_is_read_before_and_after_it_was_compared(weather: Path) -> None:
    """Chunks of 10 channels with checksums between them, in one system call or in several."""
    expected, store = state_of(6).values, Store.open(weather)
    for start, stop in ((0, 20), (0, 10), (10, 20), (3, 17), (0, 13), (7, 20), (4, 6), (9, 11)):
        for opened in (Store.open(weather), store, store):
            for time in (0, 5):
                found = opened.read([time], np.arange(start, stop))
                np.testing.assert_array_equal(found[0], expected[time, start:stop])
    reader = Store.open(weather)._shards
    assert reader is not None
    swapped = reader._index(0).copy()
    swapped[0] = swapped[0, ::-1]  # chunks in another order
    reader._indices[0] = swapped
    out = np.empty((20, 8, 16), np.float32)
    reader.read_into(out, 0, 0)
    np.testing.assert_array_equal(out, np.roll(expected[0], 10, axis=0))


@pytest.mark.parametrize("shard", ["state/c/0/0/0/0", "state/c/1/0/0/0"])
@pytest.mark.parametrize("place", [0, 10 * 8 * 16 * 4 - 1, 10 * 8 * 16 * 4, -5, -30, -1])
def test_a_bit_of_a_shard(shard: str, place: int, weather: Path) -> None:
    """Of a value, of a checksum, of the index and of the index's checksum."""
    flip(weather / shard, place)
    first = 0 if "/0/" in shard[:10] else 4
    store = Store.open(weather)
    assert len(store.times) == 6
    with pytest.raises(ValueError, match=rf"{shard} is damaged .*: copy the store again"):
        store.read([first])
    with pytest.raises(ValueError, match=rf"{shard} is damaged"):
        store.read([first], [5])  # a part of a chunk
    (found,) = damages(weather)
    assert shard in found and "has changed since it was written" in found


def test_other_chunks_of_a_damaged_shard_are_read(weather: Path) -> None:
    flip(weather / "state/c/0/0/0/0", 0)
    store = Store.open(weather)
    np.testing.assert_array_equal(store.read([3]), state_of(6).values[3:4])


def arrays_of(store: Path) -> list[str]:
    return sorted(
        p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file() and p.name != LIST
    )


def open_and_read(path: Path) -> None:
    store = Store.open(path)
    store.read(slice(None))
    store.dataset()  # coordinates are read where they are asked for
    store.statistics()
    store.climatology().at(store.times[:1])


def test_any_file_that_is_lost_cut_or_changed_is_named(weather: Path, tmp_path: Path) -> None:
    names = arrays_of(weather)
    assert len(names) > 40
    copy = tmp_path / "copy.zarr"
    for number, name in enumerate(names):
        for damage in ("lost", "cut", "bit"):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(weather, copy)
            file = copy / name
            if damage == "lost":
                file.unlink()
            elif damage == "cut":
                file.write_bytes(file.read_bytes()[:-1])
            else:
                flip(file, (number * 7919) % file.stat().st_size)
            (found,) = damages(copy)
            assert str(file) in found, (name, damage)
            with pytest.raises(ValueError, match=r"damaged") as refused:
                open_and_read(copy)
            assert str(file) in str(refused.value), (name, damage)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "line"])
def test_a_damaged_list_is_named(damage: str, weather: Path) -> None:
    file = weather / LIST
    content = file.read_bytes()
    changed = {
        "cut": content[:-9],
        "bit": b"0" + content[1:] if content[:1] != b"0" else b"1" + content[1:],
        "empty": b"",
        "line": content.partition(b"\n")[2],
    }
    file.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=r"checksums.txt is damaged"):
        Store.open(weather)
    assert "checksums.txt is damaged" in next(damages(weather))


def test_a_store_without_a_list_is_read(weather: Path) -> None:
    (weather / LIST).unlink()
    np.testing.assert_array_equal(Store.open(weather).read([1]), state_of(6).values[1:2])
    (weather / "state/c/1/0/0/0").unlink()
    with pytest.raises(ValueError, match="state/c/1/0/0/0 is missing"):
        Store.open(weather).read([5])


def test_metadata_of_another_form_end_in_a_sentence(weather: Path) -> None:
    """In a store without a list, which nobody vouches for."""
    (weather / LIST).unlink()
    compute_statistics(weather)
    (weather / LIST).unlink(missing_ok=True)
    root = weather / "zarr.json"
    whole = root.read_text()
    metadata = json.loads(whole)
    groups = metadata["consolidated_metadata"]["metadata"]
    del groups["statistics"]["attributes"]["period_start"]
    root.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"cannot be read \(KeyError: 'period_start'\)"):
        read_statistics(weather)
    groups["state"]["codecs"][0]["configuration"] = "x"
    root.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match=r"cannot be read \(TypeError"):
        open_forecasts(weather)
    root.write_text(whole)
    assert read_statistics(weather).channels


def test_a_group_put_into_a_finished_store_is_listed(weather: Path) -> None:
    before = {part.path: part for part in read_list(weather) or ()}
    compute_statistics(weather, ("2017-01-01", "2017-01-01T06"))
    after = {part.path: part for part in read_list(weather) or ()}
    assert not list(damages(weather)) and Store.open(weather).statistics().period[1].endswith(
        "06:00"
    )
    assert {k for k in after if before.get(k) != after[k]} <= {
        "zarr.json", *(k for k in after if k.startswith("statistics/"))
    }  # fmt: skip
    flip(weather / "state/c/0/0/0/0", 0)  # which a list made anew would vouch for
    with pytest.raises(ValueError, match="is damaged"):
        compute_climatology(weather)
    assert len(list(damages(weather))) == 1


@pytest.fixture
def plants(tmp_path: Path) -> Path:
    return make_store(tmp_path / "p.zarr")


def test_plant_stores_name_what_is_damaged(plants: Path, tmp_path: Path) -> None:
    assert not list(damages(plants))
    store = CubeStore.open(plants)
    name = store.names[0]
    expected = store.reflectance(name)
    copy = tmp_path / "copy.zarr"
    for number, file in enumerate(arrays_of(plants)):
        for damage in ("lost", "bit"):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(plants, copy)
            if damage == "lost":
                (copy / file).unlink()
            else:
                flip(copy / file, (number * 7919) % (copy / file).stat().st_size)
            (found,) = damages(copy)
            assert str(copy / file) in found
            with pytest.raises(ValueError, match="damaged") as refused:
                read_all(copy)
            assert str(copy / file) in str(refused.value), (file, damage)
    # Lost after the store was opened.
    (shard,) = [p for p in (plants / "cubes" / name / "reflectance").rglob("0") if p.is_file()]
    shard.unlink()
    with pytest.raises(ValueError, match=r"reflectance/c/0/0/0 is missing"):
        store.reflectance(name)
    assert np.isfinite(expected).any()


def read_all(path: Path) -> None:
    store = CubeStore.open(path)
    for name in store.names:
        store.reflectance(name)
        store.plants(name)
        with (
            checksums.damage_named(path),
            xr.open_zarr(path, group=f"cubes/{name}", consolidated=False) as dataset,
        ):
            dataset.load()
    store.statistics()


def test_parts_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(200)))
    whole = part_of(tmp_path, "a")
    assert (whole.size, whole.crc) == (200, google_crc32c.value(bytes(range(200))))
    two = [part_of(tmp_path, "a", 0, 120), part_of(tmp_path, "a", 120, 80)]
    checksums.note(tmp_path, two)
    seal(tmp_path)
    assert read_list(tmp_path) == two and require_whole(tmp_path) == two
    flip(tmp_path / "a", 150)
    assert len(list(damages(tmp_path))) == 1
    with (tmp_path / "a").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match="a has 204 bytes instead of 200"):
        require_whole(tmp_path)


def test_a_changed_file_is_not_vouched_for_by_what_was_noted(tmp_path: Path) -> None:
    """A block that is written twice, as after a kill, is noted twice: the last counts."""
    (tmp_path / "b").write_bytes(b"one")
    checksums.note(tmp_path, [part_of(tmp_path, "b")])
    (tmp_path / "b").write_bytes(b"two")
    checksums.note(tmp_path, [part_of(tmp_path, "b")])
    with (tmp_path / checksums.GROWING).open("a") as file:
        file.write("00ff")  # cut short by a kill
    (tmp_path / "c").write_bytes(b"three")
    seal(tmp_path)
    assert [p.path for p in read_list(tmp_path) or ()] == ["b", "c"] and not list(damages(tmp_path))
    assert not (tmp_path / checksums.GROWING).exists()
