"""Cosines between gradients: 1 for the truth, -1 for its opposite."""

import torch
from torch import Tensor

from learned_envs.awm.config import faithful
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.systems import make_system
from training.awm.episodes import record, uniform_plans
from training.awm.gradient_fidelity import gradient_cosines

SYSTEM = make_system("TimberHarvest", horizon=6)


class Truth(ContinuousWorldModel):
    """The true equations in the clothes of a model, with rewards times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__(faithful("markov", 1, 1, 6), SYSTEM.reward)
        self.factor = factor

    def imagine(self, observation: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        states, rewards = SYSTEM.rollout(actions, observation[:, :1])
        return states[:, 1:], self.factor * rewards


def test_truth_and_its_opposite() -> None:
    torch.manual_seed(0)
    episodes = record(SYSTEM, uniform_plans(SYSTEM, 5))
    for factor in (3.0, -1.0):
        cosines = gradient_cosines(Truth(factor), SYSTEM, episodes)
        assert cosines.shape == (5,) and torch.allclose(
            cosines, torch.full((5,), factor / abs(factor)).double(), atol=1e-5
        )
