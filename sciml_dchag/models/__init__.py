"""The model, in torch alone: no data formats, no ranks."""

from sciml_dchag.models.presets import (
    SIZES,
    ChannelTransformer,
    ModelConfig,
    build_model,
    count_parameters,
)

__all__ = ["SIZES", "ChannelTransformer", "ModelConfig", "build_model", "count_parameters"]
