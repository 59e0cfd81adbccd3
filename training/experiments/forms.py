"""The models that experiments compare, under the names that figures give them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.config import BackboneName, Family
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.systems import System
from training.awm.episodes import Episodes
from training.awm.fit import FitStage, Fitting, make_model
from training.loop import run_stage, update_seed

__all__ = ["COLORS", "FORMS", "fitted_model", "new_model", "starts_of"]

FORMS: dict[str, tuple[Family, BackboneName, dict[str, Any]]] = {
    "markov": ("markov", "mlp", {}),
    "awm-rnn": ("awm", "rnn", {}),
    "awm-lstm": ("awm", "lstm", {}),
    "awm-transformer": ("awm", "transformer", {}),
    "hwm-transformer": ("hwm", "transformer", {}),
    "hwm-detached": ("hwm", "transformer", {"feedback_gradient": 0.0}),
}
"""Family, backbone and further fields of the configuration, by name."""

COLORS = {
    "simulator": "black",
    "markov": "tab:brown",
    "awm-rnn": "tab:orange",
    "awm-lstm": "tab:olive",
    "awm-transformer": "tab:blue",
    "hwm-transformer": "tab:red",
    "hwm-detached": "tab:pink",
}


def new_model(
    form: str, system: System, seed: int, episodes: Episodes, preset: Any = "faithful"
) -> ContinuousWorldModel:
    """A model with random weights and the scales of some episodes.

    Args:
        form: A key of `FORMS`.
        system: What it models.
        seed: Seed of its weights.
        episodes: What to take the scales of states from.
        preset: Its sizes.
    """
    family, backbone, changes = FORMS[form]
    torch.manual_seed(update_seed(seed, "model", 0))
    model = make_model(system, family, backbone, preset, **changes)
    model.fit_normalization(episodes.observations)
    return model


def fitted_model(
    model: ContinuousWorldModel, episodes: Episodes, fitting: Fitting, folder: Path, seed: int
) -> ContinuousWorldModel:
    """The model, fitted in place and in double precision, ready for gradients to anything but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    run_stage(FitStage(model, episodes, fitting), folder, seed)
    return model.double().requires_grad_(False).eval()


def starts_of(system: System, batch: int) -> Tensor:
    """First observations of a deterministic system, float64, shape (batch, n)."""
    return system.observe(system.initial_state(batch, dtype=torch.float64), 0)
