"""Pretrained networks of transformers, from a folder: a tiny ResNet with random weights stands for them."""

import json

import pytest
import torch

from throughtime.errors import ConfigError
from throughtime.nn.backbone import IMAGENET, Backbone, read_scaling

transformers = pytest.importorskip("transformers")

SIZES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A ResNet for classes, as people publish them, with statistics of batch norm that are not 0 and 1."""
    torch.manual_seed(3)
    model = transformers.ResNetForImageClassification(transformers.ResNetConfig(**SIZES, num_labels=2))
    with torch.no_grad():
        for name, value in model.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("resnet")
    model.save_pretrained(path)
    return path


def backbone(folder, trained=False):
    made = Backbone(Backbone.describe(folder), trained)
    made.load(folder)
    return made


def test_features_are_those_of_the_saved_network(folder):
    pixels = torch.randn(2, 3, 32, 32)
    whole = transformers.ResNetForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    found = backbone(folder)(pixels)
    torch.testing.assert_close(found, whole.resnet(pixels).last_hidden_state)
    assert backbone(folder).channels == found.shape[1] == 16


def test_features_do_not_depend_on_the_batch_and_leave_the_statistics_alone(folder):
    made, pixels = backbone(folder, trained=True).train(), torch.randn(3, 3, 32, 32)
    before = {name: value.clone() for name, value in made.named_buffers()}
    torch.testing.assert_close(made(pixels)[1:2], made(pixels[1:2]))
    assert all(torch.equal(value, before[name]) for name, value in made.named_buffers())


def test_weights_are_learned_only_where_that_is_asked_for(folder):
    still, moving = backbone(folder), backbone(folder, trained=True)
    assert not still(torch.randn(1, 3, 32, 32)).requires_grad
    assert not any(p.requires_grad for p in still.parameters())
    moving(torch.randn(1, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in moving.parameters())


def test_the_description_is_json_and_enough_to_make_the_network(folder):
    description = json.loads(json.dumps(Backbone.describe(folder)))
    made = Backbone(description)
    assert {n: v.shape for n, v in made.named_parameters()} == {
        n: v.shape for n, v in backbone(folder).named_parameters()
    }


def test_pixels_are_scaled_as_the_folder_says(folder, tmp_path):
    assert read_scaling(folder) == IMAGENET
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}'
    )
    assert read_scaling(tmp_path) == {"mean": [0.1, 0.2, 0.3], "deviation": [1, 2, 3]}


def test_what_is_no_backbone_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"has no config.json: give the folder of a model"):
        Backbone.describe(tmp_path)
    transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        tmp_path
    )
    with pytest.raises(ConfigError, match=r'"bert" has no backbone'):
        Backbone(Backbone.describe(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "timm_backbone", "backbone": "resnet18"}')
    with pytest.raises(ConfigError, match=r"timm, which needs torchvision"):
        Backbone.describe(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match=r"the weights cannot be read"):
        backbone(tmp_path)
