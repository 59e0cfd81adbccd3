"""Go on from a moment of the real game: the world model is shown what happened, and imagines the rest."""

import gymnasium as gym
import numpy as np
import tyro

import learned_envs


def main(id: str = "LearnedPong-v0", context: int = 24, steps: int = 48, seed: int = 0) -> None:
    """Play the real game, hand over, and imagine.

    Args:
        id: Id of a learned game.
        context: Real observations handed over.
        steps: Imagined steps.
        seed: Seed of the real game.
    """
    real, learned = learned_envs.make_real(id), gym.make(id)
    real.action_space.seed(seed)
    observations, actions, rewards = [real.reset(seed=seed)[0]], [], []
    for _ in range(context - 1):
        actions.append(real.action_space.sample())
        observation, reward, *_ = real.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    given = {
        "observations": np.stack(observations),
        "actions": np.array(actions),
        "rewards": np.array(rewards, np.float32),
    }
    first, _ = learned.reset(seed=seed, options=given)
    print("The imagined game begins with the last real picture:", np.array_equal(first, observations[-1]))
    for step in range(steps):
        action = real.action_space.sample()
        seen, imagined = real.step(action)[0], learned.step(action)[0]
        if step % 8 == 7:
            off = np.abs(seen[-1].astype(int) - imagined[-1]).mean()
            print(f"step {step + 1}: {off:.2f} grey levels from the real game on average")


if __name__ == "__main__":
    tyro.cli(main)
