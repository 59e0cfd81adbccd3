"""The bundled control problems against fresh real episodes, states and gradients: ``python -m benchmarks.bundled_controls``."""

import torch
import tyro

from benchmarks.report import write_result
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.catalog import CATALOG
from learned_envs.pretrained import load_pretrained
from training.awm.episodes import record
from training.awm.gradient_fidelity import gradient_cosines
from training.awm.measure import measure_model
from training.awm.plans import mixed_plans


def main(episodes: int = 120, seed: int = 20261121) -> None:
    """Measure each model on plans that it has never seen: even shares of uniform, steady and ramped ones.

    Args:
        episodes: Real episodes of each.
        seed: Seed of their plans.
    """
    figures = {}
    for id in sorted(id for id, item in CATALOG.items() if item.bundled and item.family == "awm"):
        pretrained = load_pretrained(id)
        model, system = pretrained.model, pretrained.system
        assert isinstance(model, ContinuousWorldModel) and system is not None
        torch.manual_seed(seed)
        fresh = record(system, mixed_plans(system, episodes, ("uniform", "steady", "ramp")))
        errors, cosines = measure_model(model, fresh), gradient_cosines(model, system, fresh)
        figures[id] = {
            "family": f"{model.config.family}-{model.config.backbone}",
            **{name: errors[name] for name in ("state_error", "anywhere_error", "return_error")},
            "gradient_cosine_median": float(cosines.median()),
            "gradient_cosine_lowest_tenth": float(cosines.quantile(0.1)),
        }
    write_result("bundled_controls", figures)


if __name__ == "__main__":
    tyro.cli(main)
