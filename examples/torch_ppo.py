"""PPO whose tensors never leave the device: games, agent and rollouts on one GPU, or on the CPU. Needs a checkout."""

from pathlib import Path

import tyro

from training.agents.ppo import PpoConfig
from training.agents.run import PpoRun, train_ppo


def main(
    steps: int = 2_000_000,
    num_envs: int = 64,
    episodes: int = 10,
    folder: Path = Path("runs/torch-ppo"),
    device: str = "cpu",
) -> None:
    """Train in LearnedPong-v0, judge in real Pong; the same folder goes on with an interrupted training.

    Args:
        steps: Imagined steps.
        num_envs: Games side by side.
        episodes: Real episodes of an evaluation.
        folder: Folder of the run.
        device: Where everything computes.
    """
    config = PpoConfig(steps, evaluate_every=max(steps // 5, 1), evaluation_episodes=episodes)
    result = train_ppo(PpoRun("LearnedPong-v0", num_envs), config, folder, device)
    for each in result["evaluations"]:
        print(f"After {each['steps']:,} imagined steps: {each['mean']:.1f} ± {each['sd']:.1f} in real Pong")


if __name__ == "__main__":
    tyro.cli(main)
