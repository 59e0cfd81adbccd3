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


def test_code_of_a_cell_is_read_from_its_pixels_and_a_margin_of_four_alone() -> None:
    """Cells lie row by row."""
    model = _grid()
    per_cell = model.config.latent.variables // 64
    frames = torch.rand(1, 1, 64, 64, requires_grad=True)
    for row, column in ((2, 6), (7, 3), (1, 0)):
        cell = (row * 8 + column) * per_cell
        logits = model.encode(frames)[0, cell : cell + per_cell]
        (gradient,) = torch.autograd.grad(logits.square().sum(), frames)
        expected = torch.zeros(64, 64, dtype=torch.bool)
        expected[max(0, 8 * row - 4) : 8 * row + 12, max(0, 8 * column - 4) : 8 * column + 12] = True
        assert torch.equal(gradient[0, 0] != 0, expected)


def test_encoder_is_shown_what_differs_from_the_empty_scene() -> None:
    model = _grid()
    frames, scene = torch.rand(2, 1, 64, 64), torch.rand(64, 64)
    before = model.encode(frames)
    with torch.no_grad():
        model.background.add_(scene)
    assert torch.allclose(model.encode(frames + scene), before, atol=1e-4)


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
