"""The two observation models: shapes, initial weights, and how far a local code reaches."""

import pytest
import torch
from torch import nn

from learned_envs.twm.config import faithful
from learned_envs.twm.observation_model import DenseObservationModel, GridObservationModel, make_observation_model
from tests.tiny import KINDS, TinyKind, tiny_config, tiny_model


def _grid() -> GridObservationModel:
    model = tiny_model("compact").observation_model
    assert isinstance(model, GridObservationModel)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_frames_have_the_announced_shapes(kind: TinyKind) -> None:
    config = tiny_config(kind).observation
    model = make_observation_model(config)
    logits = model.encode(torch.rand(3, config.frames_per_code, 64, 64))
    assert logits.shape == (3, config.latent.variables, config.latent.classes)
    assert model.decode(logits.softmax(-1)).shape == (3, config.frames_per_code, 64, 64)


def test_code_of_a_cell_is_drawn_in_the_cells_around_it_alone() -> None:
    model = _grid()
    per_cell = model.config.latent.variables // 64
    latents = torch.rand(1, *_code_shape(model)).softmax(-1)
    changed = latents.clone()
    row, column = 4, 5
    cell = (row * 8 + column) * per_cell
    changed[:, cell : cell + per_cell] = changed[:, cell : cell + per_cell].flip(-1)
    difference = (model.decode(changed) - model.decode(latents))[0, 0].abs()
    cells = difference.unfold(0, 8, 8).unfold(1, 8, 8).amax((2, 3)) > 1e-6
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[row - 1 : row + 2, column - 1 : column + 2] = True
    assert torch.equal(cells, expected)


def test_cells_of_a_code_lie_row_by_row() -> None:
    """Pixels that change in a cell change the logits there most, or in a cell beside it."""
    model = _grid()
    per_cell = model.config.latent.variables // 64
    frames = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for row, column in ((2, 6), (7, 3), (1, 0)):
        spotted = frames.clone()
        spotted[:, :, 8 * row + 2 : 8 * row + 6, 8 * column + 2 : 8 * column + 6] = 1.0
        difference = (model.encode(spotted) - model.encode(frames))[0].abs().sum(-1)
        strongest = int(difference.unflatten(0, (64, per_cell)).sum(1).argmax())
        assert abs(strongest // 8 - row) <= 1 and abs(strongest % 8 - column) <= 1


def test_empty_scene_lies_behind_every_picture() -> None:
    model = _grid()
    latents = torch.rand(2, *_code_shape(model))
    before = model.decode(latents)
    with torch.no_grad():
        model.background.add_(torch.arange(64.0))
    assert torch.allclose(model.decode(latents) - before, torch.arange(64.0).expand(2, 1, 64, 64), atol=1e-4)


def _code_shape(model: GridObservationModel) -> tuple[int, int]:
    return model.config.latent.variables, model.config.latent.classes


def test_dense_weights_start_as_the_authors_do() -> None:
    torch.manual_seed(0)
    model = DenseObservationModel(faithful(18).observation)
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers:
        gain = 1.0 if layer is model.encoder[-1] else 2**0.5
        bound = gain * (3 / layer.weight[0].numel()) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is not None and not layer.bias.any()
    for layer in model.decoder:
        if isinstance(layer, nn.ConvTranspose2d):  # keep the framework's default, biases included
            bound = (layer.weight.shape[1] * layer.weight[0, 0].numel()) ** -0.5
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert layer.bias is not None and layer.bias.any()
