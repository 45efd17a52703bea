"""A pretrained network for pictures, in a folder as Hugging Face's `transformers` saves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from throughtime.errors import ConfigError

#: Mean and deviation of ImageNet's pixels, which pretrained networks are given where they say nothing else.
IMAGENET = {"mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225]}


class Backbone(nn.Module):
    """The last feature map [B, C, h, w] of a network that `transformers` has as a backbone.

    description  its configuration, as `describe` reads it from the folder.
    trained      whether its weights are learned further; else they stay as they are.

    It is always in evaluation mode: a batch norm keeps the statistics it came with, so that no picture's
    features depend on the batch. Weights are random until `load` reads them. Raises `ConfigError` where
    `transformers` is missing or has no backbone of this kind. Networks of `timm` are not read: they need
    torchvision, which is built for one release of torch alone.
    """

    def __init__(self, description: Mapping[str, Any], trained: bool = False) -> None:
        super().__init__()
        transformers = _library()
        config = transformers.AutoConfig.for_model(**description)
        try:
            self.network = transformers.AutoBackbone.from_config(config)
        except (ValueError, ImportError) as error:
            raise ConfigError(
                f'"{description["model_type"]}" has no backbone in transformers that can be used: '
                f"{str(error).strip().splitlines()[0]:.200}; take one that has, as ResNet, Swin or DINOv2"
            ) from None
        self.channels = int(self.network.channels[-1])
        self.trained = trained
        self.network.requires_grad_(trained).eval()

    @classmethod
    def describe(cls, folder: Path) -> dict[str, Any]:
        """The configuration of the network in a folder; raises `ConfigError` where there is none."""
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder} has no config.json: give the folder of a model of transformers")
        try:
            config = _library().AutoConfig.from_pretrained(folder, local_files_only=True)
        except (ValueError, OSError) as error:
            raise ConfigError(f"{folder} is no model of transformers: {error}") from None
        if config.model_type == "timm_backbone":
            raise ConfigError(f"{folder} is a network of timm, which needs torchvision: take another")
        description: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
        return description

    def load(self, folder: Path) -> None:
        """Read the weights in a folder; raises `ConfigError` where they are missing or of another network."""
        try:
            read, report = type(self.network).from_pretrained(
                folder, config=self.network.config, local_files_only=True, output_loading_info=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{folder}: the weights cannot be read: {str(error).splitlines()[0]}") from None
        if missing := report["missing_keys"]:
            raise ConfigError(f'{folder}: the weights of "{min(missing)}" are missing: is the folder whole?')
        self.network.load_state_dict(read.state_dict())

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The last feature map."""
        with nullcontext() if self.trained else torch.no_grad():
            features: Tensor = self.network(pixels).feature_maps[-1]
        return features

    def train(self, mode: bool = True) -> Self:
        """The mode of the module; the network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self


def read_scaling(folder: Path) -> dict[str, list[float]]:
    """The mean and deviation of pixels that a network was trained with, ImageNet's where it does not say."""
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
        return {"mean": list(said["image_mean"]), "deviation": list(said["image_std"])}
    except (OSError, ValueError, KeyError, TypeError):
        return IMAGENET


def _library() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigError(
            "a backbone is read by transformers, which is not installed: pip install 'throughtime[pictures]'"
        ) from None
    return transformers
