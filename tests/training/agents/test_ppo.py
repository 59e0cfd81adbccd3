"""PPO: its arithmetic, that it learns, and that an interrupted training ends where an uninterrupted one does."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from learned_envs.envs.vector import LearnedVectorEnv
from training.agents.agent import Agent, AgentConfig, AgentError
from training.agents.evaluate import evaluate
from training.agents.ppo import PpoConfig, PpoStage
from training.loop import run_stage


class Clock(VectorEnv):
    """Environment i plays episodes of i + 1 steps; action 1 earns 1, and the step that only resets would earn 100."""

    output = "numpy"

    def __init__(self, num_envs: int, truncate: bool = False) -> None:
        self.num_envs, self.truncate = num_envs, truncate
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.age = np.zeros(self.num_envs, np.int64)
        self.over = np.zeros(self.num_envs, bool)
        return self._observe(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        rewards = np.where(self.over, 0.0, actions)
        self.age = np.where(self.over, 0, self.age + 1)
        self.over = ~self.over & (self.age > np.arange(self.num_envs))
        flags = (np.zeros_like(self.over), self.over) if self.truncate else (self.over, np.zeros_like(self.over))
        return self._observe(), rewards, *flags, {}

    def _observe(self) -> np.ndarray:
        return np.stack([self.age, self.over], 1).astype(np.float32)


def _agent(envs: VectorEnv, **sizes: Any) -> Agent:
    torch.manual_seed(0)
    return Agent(AgentConfig.of(envs.single_observation_space, envs.single_action_space, **sizes))


def test_steps_that_only_reset_are_not_learned_from() -> None:
    envs = Clock(2)
    stage = PpoStage(PpoConfig(rollout=12, minibatch=7), _agent(envs), envs)
    rollout = stage._play()
    assert rollout.valid[:, 0].tolist() == [True, False] * 6  # episodes of one step
    assert rollout.valid[:, 1].tolist() == [True, True, False] * 4
    assert torch.equal(rollout.valid, rollout.observations[:, :, 1] == 0)
    loss = stage._loss(rollout_batch := _flat(rollout))[0].detach()
    poisoned = {name: tensor.clone() for name, tensor in vars(rollout_batch).items()}
    for name in ("returns", "advantages", "log_probs"):
        poisoned[name][~poisoned["valid"]] = 1e3
    poisoned["log_probs"][~poisoned["valid"]] = -1.0
    assert float(stage._loss(type(rollout_batch)(**poisoned))[0].detach()) == pytest.approx(float(loss), rel=1e-4)


def _flat(rollout: Any) -> Any:
    return type(rollout)(**{name: tensor.flatten(0, 1) for name, tensor in vars(rollout).items()})


@pytest.mark.parametrize(("truncation_ends", "follows"), [(False, True), (True, False)])
def test_truncated_episode_is_worth_what_follows_unless_the_end_of_the_time_is_the_end(
    truncation_ends: bool, follows: bool
) -> None:
    envs = Clock(1, truncate=True)
    agent = _agent(envs)
    with torch.no_grad():
        assert agent.critic.bias is not None
        agent.critic.weight.zero_()
        agent.critic.bias.fill_(5.0)
    config = PpoConfig(rollout=4, gamma=0.9, scale_rewards=False, truncation_ends=truncation_ends)
    rollout = PpoStage(config, agent, envs)._play()
    expected = rollout.actions[0, 0] + (0.9 * 5 if follows else 0)
    assert float(rollout.returns[0, 0]) == pytest.approx(float(expected))


def test_every_environment_plays_its_share_of_an_evaluation() -> None:
    envs = Clock(3)
    agent = _agent(envs)
    with torch.no_grad():
        assert agent.actor.bias is not None
        agent.actor.bias.copy_(torch.tensor([-50.0, 50.0]))
    result = evaluate(agent, envs, episodes=7)
    assert sorted(result.lengths) == [1, 1, 1, 2, 2, 3, 3]
    assert result.returns == tuple(map(float, result.lengths))
    assert (result.episodes, result.mean) == (7, pytest.approx(13 / 7))
    assert result.sd == pytest.approx(np.std(result.lengths))
    with pytest.raises(ValueError, match="episodes is 0"):
        evaluate(agent, envs, 0)


def test_it_learns_to_balance_a_pole(tmp_path: Path) -> None:
    envs, judges = (gym.make_vec("CartPole-v1", 16, vectorization_mode="vector_entry_point") for _ in range(2))
    config = PpoConfig(
        25_000, rollout=32, minibatch=128, epochs=8, learning_rate=2e-3, clip=0.2, evaluation_episodes=16
    )
    stage = PpoStage(config, _agent(envs, hidden=64), envs, 0, judges)
    run_stage(stage, tmp_path, 0)
    ((steps, result),) = stage.evaluations
    assert steps >= 25_000
    assert result.mean > 150  # random play: 22


def test_it_learns_numbers_too(tmp_path: Path) -> None:
    envs, judges = (gym.make_vec("Myriad/CancerTreatment-v0", 16, output="torch") for _ in range(2))
    config = PpoConfig(32_000, minibatch=128, evaluation_episodes=16, truncation_ends=True)
    stage = PpoStage(config, _agent(envs, hidden=64), envs, 0, judges)
    before = evaluate(stage.agent, judges, 16).mean
    run_stage(stage, tmp_path, 0)
    assert stage.evaluations[-1][1].mean > before + 5  # from about -33 to about -26


@pytest.mark.parametrize("kind", ["compact", "awm-transformer"])
def test_interrupted_training_in_a_learned_environment_ends_where_an_uninterrupted_one_does(
    tiny_snapshots: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    def stage(interrupt_at: int | None = None) -> PpoStage:
        envs = LearnedVectorEnv(tiny_snapshots[kind], 4, output="torch", max_episode_steps=5)
        made = PpoStage(PpoConfig(4 * 8 * 4, rollout=8, minibatch=10, epochs=2), _agent(envs, hidden=16), envs)
        update = made.update

        def interrupted(step: int) -> Any:
            if step == interrupt_at:
                raise KeyboardInterrupt
            return update(step)

        made.update = interrupted  # type: ignore[method-assign]
        return made

    whole = stage()
    run_stage(whole, tmp_path / "whole", 0)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(interrupt_at=2), tmp_path / "parts", 0, checkpoint_seconds=0)
    rest = stage()
    run_stage(rest, tmp_path / "parts", 0)
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(tensor, rest.agent.state_dict()[name]), name


def test_other_autoreset_modes_are_refused(tiny_snapshots: dict[str, Path]) -> None:
    envs = LearnedVectorEnv(tiny_snapshots["compact"], 2, output="torch", autoreset_mode="SameStep")
    with pytest.raises(AgentError, match=r"PPO needs AutoresetMode\.NEXT_STEP"):
        PpoStage(PpoConfig(), _agent(envs), envs)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"rollout": 0}, {"gamma": 1.5}, {"learning_rate": 0.0}, {"evaluate_every": -1}]
)
def test_numbers_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        PpoConfig(**wrong)
