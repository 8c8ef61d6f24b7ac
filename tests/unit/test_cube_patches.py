"""Crops of plant images: what a sample is, whoever asks for it and whenever."""

from pathlib import Path

import numpy as np
import pandas as pd
import plant_stores
import pytest
import torch

from sciml_dchag.objectives.masked import MaskedObjective
from sciml_dchag.plants.crops import CubePatches
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.batches import load_batches

SIZE = (8, 8)
BANDS = len(plant_stores.WAVELENGTH_NM)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CubeStore:
    """Two images of 20 x 40 pixels with two plants each."""
    plants = pd.DataFrame({"red_edge_nm": [705.0, 725.0], "green": 0.1, "plateau": [0.4, 0.6]})
    cubes = {name: plant_stores.scene(plants, seed=seed) for seed, name in enumerate("ab")}
    path = tmp_path_factory.mktemp("crops") / "plants.zarr"
    return CubeStore.open(plant_stores.write_store(path, cubes))


def crops(store: CubeStore, **changes: object) -> CubePatches:
    task = MaskedObjective(seed=1, image_size=SIZE, patch=4, channels=BANDS)
    settings = {
        "mean": np.zeros(BANDS), "std": np.ones(BANDS), "image_size": SIZE,
        "draw_mask": task.draw_mask, "flip": True, "rotate": True, **changes,
    }  # fmt: skip
    return CubePatches(store, store.names, **settings)  # type: ignore[arg-type]


def test_a_sample_is_the_same_whenever_and_however_it_is_asked_for(store: CubeStore) -> None:
    samples, kept = crops(store), crops(store, memory_mebibytes=100)
    numbers = [0, 5, 31, 4]
    for number in numbers:
        one, other = samples[number], kept[number]
        for here, there in zip(one.tensors, other.tensors, strict=True):
            assert torch.equal(here, there)
    again = [crops(store)[number].images for number in reversed(numbers)]
    for number, image in zip(reversed(numbers), again, strict=True):
        assert torch.equal(samples[number].images, image)
    assert not torch.equal(samples[0].images, samples[len(samples)].images)  # another epoch


def test_an_epoch_covers_every_image(store: CubeStore) -> None:
    assert len(crops(store)) == 2 * 3 * 5  # 20 x 40 pixels in crops of 8 x 8
    assert len(crops(store, crops=4)) == 8


def test_a_rank_reads_its_own_bands_of_the_same_crops(store: CubeStore) -> None:
    own = range(30, 70)
    whole, part = crops(store), crops(store, inputs=own)
    for number in range(4):
        assert torch.equal(part[number].images, whole[number].images[:, 30:70])
        assert torch.equal(part[number].visible, whole[number].visible)
        assert torch.equal(part[number].hidden_channels, whole[number].hidden_channels)


def test_weights_stay_on_the_plants_through_flips_and_turns(store: CubeStore) -> None:
    """Plants are bright in the near infrared, soil is not."""
    near_infrared = int(np.abs(store.wavelength_nm - 850).argmin())
    for number in range(40):
        sample = crops(store)[number]
        assert sample.weights.any(), "a crop without a plant"
        bright = sample.images[0, near_infrared] > 0.3
        assert torch.equal(bright, sample.weights[0] > 0)
    everywhere = crops(store, plants_only=False)[0]
    assert (everywhere.weights == 1).all()


def test_orientations_and_places_differ(store: CubeStore) -> None:
    still = crops(store, flip=False, rotate=False)
    turned = crops(store)
    same = [torch.equal(still[n].images, turned[n].images) for n in range(40)]
    assert 0 < sum(same) < 20  # one of eight orientations is none
    wide = crops(
        store,
        image_size=(8, 16),
        draw_mask=lambda epoch, index: (np.arange(2), np.zeros(BANDS, bool)),
    )
    assert wide[0].images.shape == (1, BANDS, 8, 16)


def test_normalised_by_band(store: CubeStore) -> None:
    mean, std = np.linspace(0, 1, BANDS), np.linspace(1, 2, BANDS)
    raw, normalised = crops(store)[3].images, crops(store, mean=mean, std=std)[3].images
    expected = (raw - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(normalised, expected.float())


def test_batches_are_dealt_as_forecasts_are(store: CubeStore) -> None:
    options = {"batch": 4, "first_step": 0, "last_step": 3, "workers": 0}
    whole = list(load_batches(crops(store), **options))  # type: ignore[arg-type]
    first, second = (
        list(load_batches(crops(store), own=own, **options))  # type: ignore[arg-type]
        for own in (range(2), range(2, 4))
    )
    for batch, a, b in zip(whole, first, second, strict=True):
        assert torch.equal(batch.images, torch.cat([a.images, b.images]))


def test_what_cannot_be_cropped_is_refused(store: CubeStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="20 x 40 pixels, fewer than a crop of 32 x 32"):
        crops(store, image_size=(32, 32))
    varied = np.random.default_rng(0).random((3, 8, 8))
    bare = {"bare": (varied, np.zeros((8, 8), int)), "green": (varied, np.ones((8, 8), int))}
    path = plant_stores.write_store(tmp_path / "bare.zarr", bare, np.array([500.0, 600, 700]))
    opened, about = CubeStore.open(path), {"mean": np.zeros(3), "std": np.ones(3)}
    samples = crops(opened, **about)
    assert set(samples.order) == {"green"}  # an empty pot shows nothing to learn from
    samples[0]
    with pytest.raises(ValueError, match="no image with a plant to draw from"):
        CubePatches(opened, ["bare"], image_size=SIZE, draw_mask=samples.draw_mask, **about)
