"""Try every action from the same moment: a state is copied as often as there are actions, and each copy goes its own way."""

import gymnasium as gym
import torch
import tyro

import learned_envs  # noqa: F401 - registers the ids


def main(id: str = "LearnedPong-v0", steps: int = 60, hold: int = 8, seed: int = 3) -> None:
    """Play for a while, then fork.

    Args:
        id: Id of a learned game.
        steps: Random steps before the fork.
        hold: How long each copy holds its action.
        seed: Seed of the game.
    """
    one = gym.make_vec(id, num_envs=1, output="torch")
    one.reset(seed=seed)
    one.action_space.seed(seed)
    for _ in range(steps):
        one.step(one.action_space.sample())
    state = one.unwrapped.get_state()
    actions = torch.arange(int(one.single_action_space.n))
    copies = gym.make_vec(id, num_envs=len(actions), output="torch")
    copies.unwrapped.set_state(state.take(torch.zeros_like(actions)))  # environment 0, once for each action
    total = torch.zeros(len(actions))
    for _ in range(hold):
        observations, rewards, *_ = copies.step(actions)
        total += rewards
    changed = (observations[:, -1].int() - observations[:1, -1].int()).abs().amax((1, 2))
    for action, reward, difference in zip(actions, total, changed, strict=True):
        print(f"action {action}: reward {reward:+.0f}, up to {difference} grey levels from what action 0 leads to")


if __name__ == "__main__":
    tyro.cli(main)
