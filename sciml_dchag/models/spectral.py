"""Channels known by their wavelength: every band's parameters as smooth functions of nanometres.

With a parameter of its own for each band a model is bound to one camera. Here a small network
maps the wavelength of a band, as Fourier features, to its embedding and to how it mixes a few
shared patch maps. No parameter has a size that depends on the bands, so that a model trained on
one camera takes another one's.

Shapes: C bands, G partitions, K channel slots of a partition, M shared maps, P pixels of a patch,
D embedding, E width of the head's input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sciml_dchag.models.hooks import local, unchanged
from sciml_dchag.models.tokenizer import ChannelLayout

SHARED_MAPS = 16
"""M: patch maps that all bands mix."""
HIDDEN = 64
"""Width of the network from wavelength to a band's numbers."""
LONGEST_NM, SHORTEST_NM, FREQUENCIES = 2000.0, 10.0, 16
"""Periods of the Fourier features, spaced geometrically: from a whole spectrum to a narrow
absorption band."""


class BandFunction(nn.Module):
    """Numbers of a band from its wavelength: Fourier features and one hidden layer.

    Fourier features let so small a network distinguish bands that are close (Tancik et al.,
    arXiv 2006.10739).

    Args:
        outputs: numbers of a band.
        variances: wanted of the outputs at the start, one for each.
    """

    def __init__(self, outputs: int, variances: Sequence[float]) -> None:
        super().__init__()
        assert len(variances) == outputs
        self.variances = tuple(variances)
        self.own: Callable[[Tensor], Tensor] = local
        self.in_weight = nn.Parameter(torch.empty(HIDDEN, 2 * FREQUENCIES))
        self.in_bias = nn.Parameter(torch.empty(HIDDEN))
        self.out_weight = nn.Parameter(torch.empty(outputs, HIDDEN))
        self.out_bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw start values: hidden numbers of variance one, outputs of the variances wanted."""
        self.in_weight.normal_(std=FREQUENCIES**-0.5)  # sines and cosines have variance 1/2
        self.in_bias.zero_()
        gelu_power = 0.425  # E[gelu(x)^2] of a standard normal x
        self.out_weight.normal_(std=(gelu_power * HIDDEN) ** -0.5)
        wanted = torch.tensor(self.variances, device=self.out_weight.device)
        self.out_weight.mul_(wanted.sqrt()[:, None])
        self.out_bias.zero_()

    def forward(self, wavelength_nm: Tensor) -> Tensor:
        """Map wavelengths in nm, (...), to numbers, (..., outputs)."""
        # In the wavelengths' own precision, whatever torch's default is: they are float64.
        steps = torch.arange(FREQUENCIES, device=wavelength_nm.device, dtype=wavelength_nm.dtype)
        steps = steps / (FREQUENCIES - 1)
        period_nm = LONGEST_NM * (SHORTEST_NM / LONGEST_NM) ** steps
        angle = 2 * math.pi * wavelength_nm[..., None] / period_nm
        dtype = self.in_weight.dtype
        features = torch.cat([angle.sin(), angle.cos()], dim=-1).to(dtype)
        hidden = nn.functional.linear(features, self._whole("in_weight"), self._whole("in_bias"))
        hidden = nn.functional.gelu(hidden)
        return nn.functional.linear(hidden, self._whole("out_weight"), self._whole("out_bias"))

    def _whole(self, name: str) -> Tensor:
        return self.own(getattr(self, name))


class WavelengthTokenizer(nn.Module):
    """Tokens whose maps and embeddings are functions of wavelength.

    token_c = x_c sum_m a_m(nm_c) W_m + e(nm_c), with M shared maps W_m of shape (P, D).

    Args:
        layout: which slot belongs to which band.
        patch_pixels: P.
        embed_dim: D.
        wavelength_nm: of every band.
    """

    wavelength_nm: Tensor

    def __init__(
        self,
        layout: ChannelLayout,
        patch_pixels: int,
        embed_dim: int,
        wavelength_nm: Sequence[float],
    ) -> None:
        super().__init__()
        self.layout = layout
        self.own: Callable[[Tensor], Tensor] = local
        self.maps = nn.Parameter(torch.empty(SHARED_MAPS, patch_pixels, embed_dim))
        variances = [1 / SHARED_MAPS] * SHARED_MAPS + [0.5] * embed_dim  # 0.5: a sine's
        self.band = BandFunction(SHARED_MAPS + embed_dim, variances)
        self.register_buffer("wavelength_nm", _wavelengths(wavelength_nm), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the shared maps: tokens of unit variance for normalised pixels."""
        bound = (3 / self.maps.shape[1]) ** 0.5
        self.maps.uniform_(-bound, bound)

    def affine(self) -> Tensor:
        """Return the affine map of each slot's pixels to its token, (G, S, K, P + 1, D)."""
        nm = self.wavelength_nm[self.layout.channel_of_slot]
        numbers = self.band(nm.view(self.layout.partitions, self.layout.slots))
        weights, embedding = numbers[..., :SHARED_MAPS], numbers[..., SHARED_MAPS:]
        maps = torch.einsum("gkm,mpd->gkpd", weights, self.own(self.maps).to(weights.dtype))
        maps = torch.cat([maps, embedding[..., None, :]], dim=-2)
        return maps.unflatten(1, (self.layout.groups, self.layout.slots_per_group))


class WavelengthHead(nn.Module):
    """A linear map for every band whose numbers are functions of wavelength.

    Args:
        channels: C.
        partitions: G.
        patch_pixels: P.
        embed_dim: E.
        wavelength_nm: of every band.
    """

    wavelength_nm: Tensor

    def __init__(
        self,
        *,
        channels: int,
        partitions: int,
        patch_pixels: int,
        embed_dim: int,
        wavelength_nm: Sequence[float],
    ) -> None:
        super().__init__()
        self.full_layout = ChannelLayout(channels, partitions, may_be_empty=True)
        self.layout = self.full_layout  # of this process's own partitions
        self.enter: Callable[[Tensor], Tensor] = unchanged
        self.own: Callable[[Tensor], Tensor] = local
        self.maps = nn.Parameter(torch.empty(SHARED_MAPS, embed_dim, patch_pixels))
        self.maps_bias = nn.Parameter(torch.empty(SHARED_MAPS, patch_pixels))
        self.band = BandFunction(SHARED_MAPS, [1 / SHARED_MAPS] * SHARED_MAPS)
        self.register_buffer("wavelength_nm", _wavelengths(wavelength_nm), persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the shared maps, biases zero."""
        nn.init.trunc_normal_(self.maps, std=0.02)
        self.maps_bias.zero_()

    def forward(self, features_BLD: Tensor) -> Tensor:
        """Predict pixels: (B, L, E) -> (B, L, C, P)."""
        nm = self.wavelength_nm[self.layout.channel_of_slot]
        weights = self.band(nm.view(self.layout.partitions, self.layout.slots))
        maps = torch.einsum("gkm,mdp->gkdp", weights, self.own(self.maps).to(weights.dtype))
        bias = torch.einsum("gkm,mp->gkp", weights, self.own(self.maps_bias).to(weights.dtype))
        pixels_BLGKP = torch.einsum("bld,gkdp->blgkp", self.enter(features_BLD), maps)
        return self.layout.to_channels(pixels_BLGKP + bias)


def _wavelengths(wavelength_nm: Sequence[float]) -> Tensor:
    # Real values even where parameters are on the meta device: they are no one's to initialise.
    with torch.device("cpu"):
        return torch.tensor(wavelength_nm, dtype=torch.float64)
