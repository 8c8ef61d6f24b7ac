"""A trained masked autoencoder on a plant store: reflectance in, reconstructions and features out.

Whole images are worked on crop by crop. A reconstruction never sees what it is compared with: each
location is predicted from passes that hide it. Scoring is `evaluation.reconstruction`'s, writing
`reconstruct`'s and `embed`'s.

Shapes: C bands of the store, H x W crop, L locations, D embedding, M passes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sciml_dchag.config import from_mapping
from sciml_dchag.config.common import MOST_SAMPLES, require_at_least
from sciml_dchag.models.config import ModelConfig
from sciml_dchag.objectives.interpolation import Interpolation
from sciml_dchag.parallel.runtime import Ranks, choose_device
from sciml_dchag.plants.crops import require_large_enough
from sciml_dchag.plants.masked.config import MaskedRecipe
from sciml_dchag.plants.masked.training import MaskedRecord
from sciml_dchag.plants.store.cubes import CubeStore
from sciml_dchag.training.export import find_model
from sciml_dchag.training.masked import masked_objective
from sciml_dchag.training.precision import autocast
from sciml_dchag.training.task import short_hash


@dataclass(frozen=True)
class Tile:
    """A crop of an image, and which of its pixels no earlier crop has."""

    rows: slice
    """Of the image."""
    columns: slice
    """Of the image."""
    new: NDArray[np.bool_]
    """(H, W)."""


@dataclass(frozen=True)
class Reconstruction:
    """A crop from one pass, in reflectance."""

    predicted: NDArray[np.float32]
    """(C, H, W)."""
    hidden: NDArray[np.bool_]
    """What the model did not see, (C, H, W)."""
    interpolated: Mapping[str, NDArray[np.float32]]
    """The same by each of the interpolations asked for, (C, H, W)."""


class Reconstructor:
    """A checkpoint opened on a plant store.

    Bands are matched by name, and a store may lack some: they are missing to the model, whose
    reconstruction of them is dropped. A model that knows channels by wavelength takes any bands
    between its first and its last one.

    Args:
        checkpoint: a checkpoint, a run folder or an exported file.
        store: its images must have a crop's size at least.
        device: as `parallel.device`; None is the run's.

    Raises:
        FileNotFoundError: no checkpoint.
        ValueError: no such device, a damaged checkpoint, one of another task, or a store with
            bands that the checkpoint does not know, or standardised where that of training was not.
    """

    def __init__(
        self, checkpoint: str | os.PathLike[str], store: CubeStore, device: str | None = None
    ) -> None:
        found = find_model(checkpoint)
        self.path, saved = found.path, found.checkpoint
        if saved.kind != "masked":
            raise ValueError(
                f"{self.path} is no masked autoencoder's, which {store.path} needs: name a run "
                f"of a recipe with task.kind masked."
            )
        self.step, self.store = saved.step, store
        self.recipe = from_mapping(MaskedRecipe, saved.recipe)
        self.ranks = Ranks(device=choose_device(device or self.recipe.parallel.device))
        config = from_mapping(ModelConfig, saved.model_config)
        data = saved.read_data(MaskedRecord, self.path)
        data.require_quantity(store, self.path)
        mean, std = np.asarray(data.mean), np.asarray(data.std)
        if config.channel_embedding == "wavelength":
            config, mean, std = _for_bands(config, mean, std, store, self.path)
        self._places = _places(list(config.input_channels), store, self.path)
        self.model = found.ready(self.ranks, self.recipe.training, config=config)
        self.config = config
        self.task = masked_objective(self.recipe.seed, self.recipe.task, config)
        if data.kernels:
            bands = np.arange(len(data.kernels))
            if config.channel_embedding == "wavelength":  # the store may have other bands
                bands = _nearest(np.asarray(saved.model_config["wavelength_nm"]), store)
            self.task.start_from(
                np.asarray(data.kernels)[bands].tolist(), np.asarray(data.missed_std)[bands]
            )
        self.mean, self.std = mean[self._places], std[self._places]
        self.training_images = data.training_images

    def encoder(self) -> str:
        """Return a hash of the weights: equal for copies and exports of a checkpoint alone."""
        tensors = sorted(self.model.named_parameters())
        values = (t.detach().cpu().reshape(-1).view(torch.uint8).numpy() for _, t in tensors)
        return short_hash(*(value.tobytes() for value in values))

    def tiles(self, cube: str) -> list[Tile]:
        """Cover an image with crops, rows from the top; the last ones overlap those before.

        Raises:
            ValueError: the image is smaller than a crop.
        """
        size = require_large_enough(self.store, cube, self.config.image_size)
        covered = np.zeros(size, bool)
        tiles = []
        for row in _starts(size[0], self.config.image_size[0]):
            for column in _starts(size[1], self.config.image_size[1]):
                rows = slice(row, row + self.config.image_size[0])
                columns = slice(column, column + self.config.image_size[1])
                tiles.append(Tile(rows, columns, ~covered[rows, columns]))
                covered[rows, columns] = True
        return tiles

    @torch.no_grad()
    def reconstruct(
        self,
        reflectance: NDArray[np.float32],
        index: int,
        batch: int = 8,
        beside: Mapping[str, Interpolation] | None = None,
    ) -> Iterator[Reconstruction]:
        """Reconstruct a crop from passes that together hide every location.

        Args:
            reflectance: (C, H, W), NaN where not known.
            index: of the crop; which locations a pass hides depends on it and the run's seed.
            batch: passes that are computed at once.
            beside: interpolations of the model's bands that are made of the same passes.
        """
        visible, hidden = self.task.complementary(index)
        image = self._normalised(reflectance)
        require_at_least(1, "batch", batch, MOST_SAMPLES)
        for seen, away in zip(visible.split(batch), hidden.split(batch), strict=True):
            images = image.expand(len(seen), -1, -1, -1)
            seen, away = seen.to(self.ranks.device), away.to(self.ranks.device)
            with autocast(self.recipe.training.precision, self.ranks.device):
                predicted = self.task.reconstruct(self.model, images, seen, away)
            pixels = self.task.hidden_pixels(seen, away).expand_as(predicted)
            there = ~self.task.unseen(seen)[:, 0]
            filled = {
                name: interpolate(images.nan_to_num(0.0), there, away).cpu()
                for name, interpolate in (beside or {}).items()
            }
            for number, one in enumerate(predicted.float().cpu()):
                yield Reconstruction(
                    self._physical(one.numpy()[self._places]),
                    pixels[number].cpu().numpy()[self._places],
                    {
                        name: self._physical(each[number].numpy()[self._places])
                        for name, each in filled.items()
                    },
                )

    @torch.no_grad()
    def features(self, reflectance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode a crop of which all locations are shown: (C, H, W) -> (L, D)."""
        image = self._normalised(reflectance)
        available = image.isfinite()
        with autocast(self.recipe.training.precision, self.ranks.device):
            features = self.model.encode(
                image.nan_to_num(0.0), None if available.all() else available
            )
        return features[0].float().cpu().numpy()

    def _normalised(self, reflectance: NDArray[np.float32]) -> torch.Tensor:
        """Bring a crop to the model's bands, NaN where the store has none: (1, C_model, H, W)."""
        whole = np.full(
            (len(self.config.input_channels), *reflectance.shape[1:]), np.nan, np.float32
        )
        whole[self._places] = (reflectance - self.mean[:, None, None]) / self.std[:, None, None]
        return torch.from_numpy(whole)[None].to(self.ranks.device)

    def _physical(self, normalised: NDArray[np.float32]) -> NDArray[np.float32]:
        physical = normalised * self.std[:, None, None] + self.mean[:, None, None]
        return physical.astype(np.float32)


def _for_bands(
    config: ModelConfig,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    store: CubeStore,
    path: Path,
) -> tuple[ModelConfig, NDArray[np.float64], NDArray[np.float64]]:
    """Turn a model that knows channels by wavelength, and its statistics, to the store's bands."""
    known, wanted = np.asarray(config.wavelength_nm), store.wavelength_nm
    # A band's width beyond the ends still is what the model has seen.
    reach = float(np.diff(known).max()) if len(known) > 1 else 0.0
    if wanted[0] < known[0] - reach or wanted[-1] > known[-1] + reach:
        raise ValueError(
            f"{path} was trained on {known[0]:g} to {known[-1]:g} nm and {store.path} has "
            f"{wanted[0]:g} to {wanted[-1]:g} nm: prepare the store with prepare.bands within that."
        )
    names = tuple(store.channels.names)
    turned = dataclasses.replace(
        config, input_channels=names, output_channels=names, wavelength_nm=tuple(wanted.tolist())
    )
    return turned, np.interp(wanted, known, mean), np.interp(wanted, known, std)


def _nearest(known_nm: NDArray[np.float64], store: CubeStore) -> NDArray[np.int64]:
    """Positions of the known wavelengths that are nearest to the store's."""
    return np.abs(np.subtract.outer(store.wavelength_nm, known_nm)).argmin(1)


def _starts(whole: int, side: int) -> list[int]:
    """Where crops start along one side of an image."""
    return [*range(0, whole - side, side), whole - side]


def _places(known: list[str], store: CubeStore, path: Path) -> list[int]:
    """Find the store's bands among the checkpoint's."""
    where = {name: place for place, name in enumerate(known)}
    if strange := [name for name in store.channels.names if name not in where]:
        raise ValueError(
            f"{path} knows {len(known)} bands from {known[0]} to {known[-1]}, and {store.path} has "
            f"{strange[0]}, which is none of them: prepare the store with prepare.bands of the "
            f"run's recipe.yaml, or train with model.channel_embedding=wavelength."
        )
    return [where[name] for name in store.channels.names]
