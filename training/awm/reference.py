"""How good is a return? Between random and optimal actions, both measured in the simulator."""

from dataclasses import dataclass

import torch

from learned_envs.envs.real.systems import System, make_system
from training.awm.episodes import record, uniform_plans
from training.awm.open_loop import optimize_plan
from training.loop import update_seed

__all__ = ["Reference", "measure_reference"]


@dataclass(frozen=True)
class Reference:
    """Returns to compare with.

    Args:
        random: Mean return of uniform actions.
        random_error: Its standard error.
        optimum: Best return found by open-loop optimisation, a lower bound on the optimum.
    """

    random: float
    random_error: float
    optimum: float

    def normalize(self, value: float) -> float:
        """A return R as (R - random) / (optimum - random)."""
        return (value - self.random) / (self.optimum - self.random)


def measure_reference(system: System, episodes: int = 500, iterations: int = 500) -> Reference:
    """Measure what random and optimal actions earn; for a noisy system, in the same one without noise and distractors.

    The result does not depend on the global generator.

    Args:
        system: The system.
        episodes: Episodes of random actions.
        iterations: Steps of the optimiser.
    """
    if system.noise_size:
        system = make_system(system, **{name: 0 for name in ("noise", "distractors") if hasattr(system, name)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(update_seed(0, "reference", 0))
        returns = record(system, uniform_plans(system, episodes, torch.float64)).rewards.sum(1)
        _, optimum = optimize_plan(system, iterations)
    error = float(returns.std()) / episodes**0.5
    return Reference(float(returns.mean()), error, optimum)
