"""PPO of Stable-Baselines3 learns in LearnedPong-v0; real Pong is only there to judge it."""

import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback

from learned_envs.sb3 import make_real_vec_env, make_vec_env


def main(
    steps: int = 1_000_000, n_envs: int = 64, evaluations: int = 10, episodes: int = 10, device: str = "cpu"
) -> None:
    """Train, judge now and then, and keep the best agent.

    Args:
        steps: Imagined steps.
        n_envs: Games side by side.
        evaluations: How often to judge.
        episodes: Real episodes of an evaluation.
        device: Where agent and model compute.
    """
    imagined = make_vec_env("LearnedPong-v0", n_envs, device=device, seed=0)
    real = make_real_vec_env("LearnedPong-v0", min(episodes, 8), seed=0)
    every = max(steps // n_envs // evaluations, 1)
    judge = EvalCallback(real, n_eval_episodes=episodes, eval_freq=every, best_model_save_path="runs/sb3-ppo")
    agent = PPO(
        "CnnPolicy", imagined, n_steps=32, batch_size=256, n_epochs=4, ent_coef=0.01, clip_range=0.1, device=device
    )
    agent.learn(steps, judge)
    print(f"Best mean return in real Pong: {judge.best_mean_reward:.1f}")


if __name__ == "__main__":
    tyro.cli(main)
