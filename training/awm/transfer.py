"""Does what is learned inside a world model hold outside? Train a policy in it, then let it act in the real system."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.systems import System
from training.awm.bpo import evaluate
from training.awm.gradient import imagine, play
from training.awm.model_recipe import PolicyRecipe
from training.awm.optimization import descend
from training.awm.policy import Policy
from training.awm.reference import measure_reference
from training.loop import run_stage
from training.twm.observation import cosine

__all__ = ["PolicyStage", "measure_transfer"]

_WARM_UP = 100


class PolicyStage:
    """Trains a policy up the gradient of the return that a finished model imagines; weights from the global generator.

    Args:
        model: The model; it does not change.
        starts: Real beginnings, shape (N, n).
        observations: What is seen in real episodes, for the policy's scales, shape (..., n).
        recipe: How.
    """

    name = "policy"
    log_every = 10

    def __init__(self, model: ContinuousWorldModel, starts: Tensor, observations: Tensor, recipe: PolicyRecipe) -> None:
        self.model, self.starts, self.recipe = model, starts, recipe
        self.updates = recipe.updates
        self.policy = Policy(model.config.observation_dim, model.config.action_dim)
        self.policy.normalizer.fit(observations)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), recipe.learning_rate)

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(step, self.updates, recipe.learning_rate, max(1, min(_WARM_UP, self.updates // 2)))
        starts = self.starts[torch.randint(len(self.starts), (recipe.batch,))]
        returns = imagine(self.model, starts, self.policy, self.model.config.horizon).rewards.sum(1)
        norm = descend(self.optimizer, -returns.mean(), recipe.clip)
        return {"policy/imagined_return": returns.detach().mean(), "policy/gradient_norm": norm}

    def visualize(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`: nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])


def measure_transfer(stage: PolicyStage, system: System, folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Train, or go on training, and compare what the policy earns in the model with what it really earns.

    Args:
        stage: The policy and where it is trained.
        system: The real system, deterministic.
        folder: Folder of the run.
        seed: Seed of the training.
        seconds: Time between two checkpoints.

    Returns:
        ``imagined_return`` and ``real_return`` of the policy without noise; ``random`` and ``optimum`` of
        `training.awm.reference.Reference`; and the real return ``normalized`` between them.
    """
    run_stage(stage, folder, seed, seconds)
    horizon = stage.model.config.horizon
    none = torch.empty(1, horizon, 0)
    with torch.no_grad():
        seen = play(stage.model, stage.starts[:1], stage.policy, None, none)[:, :-1]
        imagined = float(stage.model.imagine(seen[:, 0], stage.policy.act(seen))[1].sum())
    real = evaluate(system, stage.policy)
    reference = measure_reference(system)
    return {
        "imagined_return": imagined,
        "real_return": real,
        **asdict(reference),
        "normalized": reference.normalize(real),
    }
