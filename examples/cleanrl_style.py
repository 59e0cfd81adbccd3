"""An actor-critic in one file, with nothing but Gymnasium's vector interface and torch.

Vector environments reset in NEXT_STEP mode: the step after the end of an episode ignores its action and only returns the first
observation of the next one. That step is no experience, and is left out of the loss.
"""

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from torch import nn

import learned_envs  # noqa: F401 - registers the ids


def main(steps: int = 500_000, num_envs: int = 32, rollout: int = 16, gamma: float = 0.99, seed: int = 0) -> None:
    """Train an agent.

    Args:
        steps: Steps of all games together.
        num_envs: Games side by side.
        rollout: Steps of each game between two updates.
        gamma: Discount.
        seed: Seed of agent and games.
    """
    torch.manual_seed(seed)
    envs = RecordEpisodeStatistics(gym.make_vec("LearnedPong-v0", num_envs=num_envs))
    layers = (
        nn.Conv2d(4, 16, 8, 4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1152, 256),
        nn.ReLU(),
    )
    trunk, actor, critic = nn.Sequential(*layers), nn.Linear(256, 6), nn.Linear(256, 1)
    optimizer = torch.optim.Adam([*trunk.parameters(), *actor.parameters(), *critic.parameters()], 5e-4)
    observations, _ = envs.reset(seed=seed)
    over = np.zeros(num_envs, bool)
    for update in range(max(steps // (num_envs * rollout), 1)):
        played = []
        for _ in range(rollout):
            features = trunk(torch.from_numpy(observations) / 255)
            policy, value = torch.distributions.Categorical(logits=actor(features)), critic(features)[:, 0]
            action = policy.sample()
            valid = ~over
            observations, rewards, terminated, truncated, infos = envs.step(action.numpy())
            over = terminated | truncated
            flags = (torch.as_tensor(each, dtype=torch.float32) for each in (rewards, terminated, over, valid))
            played.append((policy.log_prob(action), policy.entropy(), value, *flags))
            if "episode" in infos:
                print(f"update {update}: an episode returned {infos['episode']['r'][infos['_episode']].mean():.0f}")
        with torch.no_grad():
            following = critic(trunk(torch.from_numpy(observations) / 255))[:, 0]
        loss = torch.zeros(())
        returns = following
        for log_prob, entropy, value, reward, terminated, over_then, valid in reversed(played):
            # After a step that ended an episode comes its true last observation, whose value is that of the step that resets.
            returns = reward + gamma * torch.where(over_then.bool(), following, returns) * (1 - terminated)
            advantage = returns - value.detach()
            loss = (
                loss + (valid * ((value - returns) ** 2 / 2 - log_prob * advantage - 0.01 * entropy)).mean() / rollout
            )
            following = value.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    tyro.cli(main)
