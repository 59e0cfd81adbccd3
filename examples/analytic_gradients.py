"""Improve a plan by gradients through the world model: rewards tell every action of the plan how to change.

Actions of control problems are numbers, and gradients are exact. Actions of games are given as probabilities, and gradients pass
sampled latents straight through: try --id LearnedPong-v0.
"""

import gymnasium as gym
import torch
import tyro

import learned_envs  # noqa: F401 - registers the ids


def main(
    id: str = "LearnedCancerTreatment-v0", num_envs: int = 8, horizon: int = 20, updates: int = 20, rate: float = 1.0
) -> None:
    """Plan from the same starts again and again.

    Args:
        id: Id of the environment, or of a control problem.
        num_envs: Plans, each from a start of its own.
        horizon: Actions of a plan.
        updates: Steps up the gradient.
        rate: Their size.
    """
    envs = gym.make_vec(id, num_envs=num_envs, output="torch", differentiable=True, starts="anywhere")
    space = envs.single_action_space
    discrete = isinstance(space, gym.spaces.Discrete)
    width = int(space.n) if discrete else gym.spaces.flatdim(space)
    plan = torch.zeros(horizon, num_envs, width, requires_grad=True)
    for update in range(updates):
        envs.reset(seed=0)  # the same starts and the same noise
        total, alive = torch.zeros(num_envs), torch.ones(num_envs)
        for step in plan:
            _, reward, terminated, truncated, _ = envs.step(step.softmax(-1) if discrete else step.tanh())
            total = total + alive * reward
            alive = alive * ~(terminated | truncated)  # what follows is another episode
        (gradient,) = torch.autograd.grad(total.sum(), plan)
        with torch.no_grad():
            plan += rate * gradient / gradient.norm().clamp_min(1e-8)
        print(f"update {update}: mean return {total.mean().item():+.3f}, gradient {gradient.norm().item():.2e}")


if __name__ == "__main__":
    tyro.cli(main)
