"""Places that commands write to: nothing but their own is removed, and one writer at a time."""

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from training_runs import recipe

from sciml_dchag.files.checksums import LIST, seal
from sciml_dchag.files.digests import sampled_digest
from sciml_dchag.files.places import check_place, held
from sciml_dchag.files.zarr_groups import PROGRESS_FILE, open_to_write, partial_path
from sciml_dchag.pipeline import train
from sciml_dchag.training.checkpoint import find_checkpoint, load_tensors, read_checkpoint
from sciml_dchag.training.export import export
from sciml_dchag.weather.forecast.predict import predict_period
from sciml_dchag.weather.store.store import Store
from sciml_dchag.weather.store.writing import WEATHER_STORE

Series = Callable[..., xr.DataArray]
Write = Callable[..., Path]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def trained(msl_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("places") / "run"
    train(recipe(msl_store), run)
    return run


def test_forecasts_as_netcdf_leave_the_store_of_the_same_name(
    trained: Path, msl_store: Path, tmp_path: Path
) -> None:
    store = tmp_path / "w.zarr"
    shutil.copytree(msl_store, store)
    before = content(store)
    for overwrite in (False, True):
        predict_period(trained, tmp_path / "w.nc", store=store, batch=8, overwrite=overwrite)
    assert content(store) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.nc", "w.zarr"]


def test_the_lock_of_a_killed_process_is_removed_where_all_is_in_place(
    msl_store: Path, tmp_path: Path
) -> None:
    store, lock = tmp_path / "w.zarr", tmp_path / ".w.zarr.lock"
    shutil.copytree(msl_store, store)
    lock.write_text(json.dumps({"host": "h", "pid": 1}))
    with pytest.raises(FileExistsError, match="exists: choose another name, or replace"):
        check_place(store, WEATHER_STORE, overwrite=False)
    assert not lock.exists()
    with held(store, WEATHER_STORE, overwrite=True):
        check_place(store, WEATHER_STORE, overwrite=True)
        assert lock.exists()
    lock.write_text(json.dumps({"host": "h", "pid": 1}))
    partial_path(store).mkdir()  # which the lock's file says to be ours
    check_place(store, WEATHER_STORE, overwrite=True)
    assert lock.exists()


@contextlib.contextmanager
def files_of_at_most(number: int) -> Iterator[None]:
    """Let files grow no larger, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_what_can_be_resumed_and_nothing_else(
    trained: Path, msl_store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "w.nc"
    with (
        files_of_at_most(16_000),
        pytest.raises(OSError, match="No room .* nothing is left behind"),
    ):
        predict_period(trained, out, store=msl_store, batch=8)
    assert not list(tmp_path.iterdir())
    kept = "No room to write .*w.nc .* initial times are kept in .*w.nc.partial; .* which resumes"
    with files_of_at_most(70_000), pytest.raises(OSError, match=kept):  # chunks fit, the file not
        predict_period(trained, out, store=msl_store, batch=8)
    predict_period(trained, out, store=msl_store, batch=8)
    assert [p.name for p in tmp_path.iterdir()] == ["w.nc"]


def test_forecasts_replace_only_forecasts(trained: Path, msl_store: Path, tmp_path: Path) -> None:
    store, notes, file = tmp_path / "w.zarr", tmp_path / "notes.zarr", tmp_path / "mine.nc"
    shutil.copytree(msl_store, store)
    notes.mkdir()
    (notes / "thesis.txt").write_text("words")
    xr.Dataset({"mine": 1.0}).to_netcdf(file, engine="h5netcdf")
    before = content(tmp_path)
    for place in (store, notes, file):
        with pytest.raises(FileExistsError, match="choose another name"):
            predict_period(trained, place, store=msl_store, overwrite=True)
    assert content(tmp_path) == before

    out = predict_period(trained, tmp_path / "f.zarr", store=msl_store, batch=8)
    predict_period(trained, out, store=msl_store, batch=8, overwrite=True)
    (out / "remarks.md").write_text("the storm of the 29th")
    with pytest.raises(FileExistsError, match=r"holds remarks\.md"):
        predict_period(trained, out, store=msl_store, overwrite=True)
    assert (out / "remarks.md").read_text() == "the storm of the 29th"


@pytest.mark.parametrize("suffix", ["partial", "former"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_the_users_beside_the_place_is_kept(
    suffix: str, overwrite: bool, tmp_path: Path, series: Series, write: Write
) -> None:
    own = tmp_path / f"a.zarr.{suffix}"
    own.mkdir()
    (own / "thesis.txt").write_text("words")
    with pytest.raises(FileExistsError, match="was not made by this command"):
        write(series(), tmp_path / "a.zarr", overwrite=overwrite)
    assert content(tmp_path) == {f"a.zarr.{suffix}/thesis.txt": b"words"}


def test_a_second_writer_is_refused_and_a_killed_one_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    script = f"""
        import sys, time
        from pathlib import Path
        from sciml_dchag.files.places import held
        from sciml_dchag.weather.store.writing import WEATHER_STORE
        with held(Path({str(path)!r}), WEATHER_STORE, False):
            Path({str(partial_path(path))!r}).mkdir()
            Path({str(partial_path(path) / "half")!r}).write_text("half")
            print("held", flush=True)
            time.sleep(60)
    """
    first = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"Process {first.pid} on .* has been writing"):
        check_place(path, WEATHER_STORE, False)
    with (
        pytest.raises(ValueError, match=f"Process {first.pid} on"),
        held(path, WEATHER_STORE, True),
    ):
        pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    with held(path, WEATHER_STORE, False):
        assert (partial_path(path) / "half").exists()
        shutil.rmtree(partial_path(path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["zarr.json", "state/zarr.json"])
def test_a_damaged_partial_store_is_begun_again(
    damage: str, tmp_path: Path, series: Series, write: Write
) -> None:
    state, path = series(times=4), tmp_path / "a.zarr"

    def stop(*_: object) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write(state, path, check=stop)
    (partial_path(path) / damage).unlink()
    write(state, path)
    np.testing.assert_array_equal(Store.open(path).read(slice(None)), state.values)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_at_any_change_the_old_or_the_new_is_whole(
    overwrite: bool, tmp_path: Path, series: Series, write: Write
) -> None:
    """Each change of a name or removal on the way of a finished store to its place is the last."""
    old, new = series(times=4, seed=1), series(times=4, seed=2)
    for name, state in (("old", old), ("new", new)):
        np.save(tmp_path / f"{name}.npy", state.values)
    script = f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import killed_writer
        killed_writer.main({str(tmp_path)!r}, {overwrite})
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    points = int(done.stdout.split()[-1])
    assert points >= (20 if overwrite else 2)


def test_a_finished_store_with_its_progress_is_finished(
    tmp_path: Path, series: Series, write: Write
) -> None:
    """As a kill between its renaming and the removal of the record leaves it."""
    state, path = series(times=4), tmp_path / "a.zarr"
    write(state, path)
    record: dict[str, object] = {}

    def keep(_: Path) -> None:
        record.update(json.loads((partial_path(path) / PROGRESS_FILE).read_text()))

    shutil.rmtree(path)
    write(state, path, finish=keep)
    (path / PROGRESS_FILE).write_text(json.dumps(record))
    assert Store.open(path).shape == state.shape
    write(state, path)
    assert not (path / PROGRESS_FILE).exists()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write(state, path)


@pytest.mark.parametrize("changed", ["weights", "store"])
def test_forecasts_of_two_models_or_stores_are_not_mixed(
    changed: str, trained: Path, msl_store: Path, tmp_path: Path
) -> None:
    run, store, out = tmp_path / "run", tmp_path / "w.zarr", tmp_path / "f.zarr"
    shutil.copytree(trained, run)
    shutil.copytree(msl_store, store)

    def stop(done: int, *_: object) -> None:
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        predict_period(run, out, store=store, batch=4, progress=stop)
    if changed == "weights":
        shutil.rmtree(run)
        other = recipe(msl_store)
        train(type(other)(**{**vars(other), "seed": 7}), run)
    else:
        states = open_to_write(store / "state")
        states[:] = np.asarray(states[:]) + 1
        (store / LIST).unlink()
        seal(store)
    with pytest.raises(ValueError, match="other settings or sources"):
        predict_period(run, out, store=store, batch=4)
    predict_period(run, out, store=store, batch=4, overwrite=True)
    again = predict_period(run, tmp_path / "again.zarr", store=store, batch=4)
    with xr.open_zarr(out) as one, xr.open_zarr(again) as other_one:
        xr.testing.assert_identical(one.load(), other_one.load())


def test_lead_times_lie_ahead(trained: Path, msl_store: Path, tmp_path: Path) -> None:
    for leads in ([0], [-6], [6, -6]):
        with pytest.raises(ValueError, match="is no time ahead"):
            predict_period(trained, tmp_path / "f.zarr", store=msl_store, lead_hours=leads)
    assert not list(tmp_path.iterdir())


def test_two_trainings_in_one_folder_are_refused(msl_store: Path, tmp_path: Path) -> None:
    run, refused = tmp_path / "run", []

    def second(line: str) -> None:
        if not refused:
            import threading

            def attempt() -> None:
                try:
                    train(recipe(msl_store), run)
                except ValueError as error:
                    refused.append(str(error))

            other = threading.Thread(target=attempt)
            other.start()
            other.join()

    train(recipe(msl_store), run, console=second)
    assert "has been writing" in refused[0]
    assert read_checkpoint(run).complete and not (run / ".lock").exists()


def test_a_checkpoint_runs_no_code(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    checkpoint, victim = find_checkpoint(run), tmp_path / "ran"
    # cos\nsystem: what a pickle of `os.system(...)` consists of
    (checkpoint / LIST).unlink()  # which nobody else would give it
    (checkpoint / ".metadata").write_bytes(b"cos\nsystem\n(S'touch " + bytes(victim) + b"'\ntR.")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        export(run, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_tensors(checkpoint, {})
    assert not victim.exists() and not (tmp_path / "m.safetensors").exists()


def test_a_digest_sees_a_change_of_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sciml_dchag.files import digests

    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(digests, "SAMPLE_BYTES", 100)
    random = np.random.default_rng(0)
    (tmp_path / "a").write_bytes(random.bytes(5000))
    first = sampled_digest(tmp_path)
    assert sampled_digest(tmp_path) == first
    (tmp_path / "a").write_bytes(random.bytes(5000))
    assert sampled_digest(tmp_path) != first


def test_a_tables_columns_and_images_names_stay_in_the_store(tmp_path: Path) -> None:
    import pandas as pd

    from sciml_dchag.plants.prepare.splits import read_table

    for column in ("..", ".", PROGRESS_FILE, "finished", "quicklooks", "x" * 300, "a\\b", "a\0b"):
        table = tmp_path / "t.csv"
        pd.DataFrame({"file": ["one.img"], column: [1]}).to_csv(table, index=False)
        with pytest.raises(ValueError, match="column"):
            read_table(table, [Path("one.img")], ["one"])


@pytest.mark.parametrize(
    "name", ["..", ".", "a/b", "a\\b", "/abs", "--wrap=touch pwned", "x" * 300]
)
def test_a_recipes_name_is_a_plain_folder(name: str, msl_store: Path) -> None:
    with pytest.raises(ValueError, match="name"):
        type(recipe(msl_store))(**{**vars(recipe(msl_store)), "name": name})


def test_export_says_that_there_is_no_folder(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        export(trained, tmp_path / "missing" / "m.safetensors")
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="not only, an exported model"):
        export(trained, mine, overwrite=True)
    assert mine.read_bytes() == b"precious"
    out = export(trained, tmp_path / "m.safetensors")
    export(trained, out, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "mine.safetensors"]


@pytest.mark.parametrize("place", [".", "..", "a/..", "file/store.zarr", "file/below/store.zarr"])
def test_places_that_can_hold_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    with pytest.raises(FileExistsError, match="choose another name"):
        check_place(Path(place), WEATHER_STORE, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
def test_a_folder_in_which_no_file_can_be_made_is_said() -> None:
    with (
        pytest.raises(OSError, match="Nothing can be written in /proc: choose another place"),
        held(Path("/proc/a.zarr"), WEATHER_STORE, overwrite=False),
    ):
        pass
