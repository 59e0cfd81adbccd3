"""Agents: what they see and do, and how they are kept."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from learned_envs import make_real
from training.agents.agent import Agent, AgentConfig, AgentError, Moments, load_agent, save_agent
from training.policies import AgentPolicy

PICTURES = AgentConfig((4, 64, 64), True, 6)
NUMBERS = AgentConfig((3,), False, 0, (-1.0, 0.0), (1.0, 10.0))


def test_numbers_are_brought_to_mean_zero_and_deviation_one_whatever_the_parts_they_came_in() -> None:
    values = torch.randn(1000, 3, dtype=torch.float64) * torch.tensor([1.0, 1e3, 0.0]) + torch.tensor([5.0, -1e4, 7.0])
    whole, parts = Moments((3,)), Moments((3,))
    whole.see(values)
    for part in values.split([1, 299, 700]):
        parts.see(part)
    assert torch.allclose(parts.mean, values.mean(0)) and torch.allclose(parts.var, values.var(0, correction=0))
    assert torch.allclose(whole.mean, parts.mean) and torch.allclose(whole.var, parts.var)
    scaled = parts(values)
    assert torch.allclose(scaled.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-4)


def test_actions_that_are_numbers_lie_within_their_bounds() -> None:
    actions = Agent(NUMBERS).in_space(torch.tensor([[-9.0, -9.0], [9.0, 9.0], [0.0, 0.5]]))
    assert actions.tolist() == [[-1.0, 0.0], [1.0, 10.0], [0.0, 7.5]]


@pytest.mark.parametrize("config", [PICTURES, NUMBERS, AgentConfig((4, 64, 64), True, 6, bf16=True)])
def test_agent_is_the_same_after_it_was_kept(config: AgentConfig, tmp_path: Path) -> None:
    agent = Agent(config).eval()
    if agent.moments is not None:
        agent.moments.see(torch.randn(10, 3) * 5)
    save_agent(agent, tmp_path / "agent.safetensors")
    again = load_agent(tmp_path / "agent.safetensors")
    shape = 5, *config.observation_shape
    seen = torch.randint(256, shape, dtype=torch.uint8) if config.pictures else torch.randn(shape)
    assert again.config == config
    assert torch.equal(agent.act(seen, greedy=True), again.act(seen, greedy=True))
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


def test_agent_that_is_kept_to_some_actions_takes_no_others_however_it_learns() -> None:
    agent = Agent(PICTURES)
    agent.take_only({0, 2, 3})
    seen = torch.randint(256, (200, 4, 64, 64), dtype=torch.uint8)
    optimizer = torch.optim.Adam(agent.parameters(), 1e-2)
    distribution, _ = agent(seen)
    for _ in range(5):  # as far from its actions as it can
        assert torch.isfinite(distribution.entropy()).all() and distribution.entropy().max() <= np.log(3) + 1e-5
        optimizer.zero_grad()
        distribution.log_prob(torch.randint(2, 4, (200,))).mean().backward()
        optimizer.step()
        distribution, _ = agent(seen)
    assert distribution.probs[:, [1, 4, 5]].max() == 0
    assert set(agent.act(seen).tolist()) <= {0, 2, 3}


@pytest.mark.parametrize("actions", [set(), {6}, {-1, 0}])
def test_agent_cannot_be_kept_to_actions_that_it_does_not_have(actions: set[int]) -> None:
    with pytest.raises(AgentError, match="some of its actions 0 to 5"):
        Agent(PICTURES).take_only(actions)
    with pytest.raises(AgentError, match="are numbers"):
        Agent(NUMBERS).take_only({0})


def test_files_that_hold_no_agent_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    with pytest.raises(AgentError, match="Train one: python -m training ppo"):
        load_agent(path)
    path.write_bytes(b"no agent")
    with pytest.raises(AgentError, match="holds no agent"):
        load_agent(path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(AgentError, match="has format None"):
        load_agent(path)
    save_agent(Agent(NUMBERS), path)
    save_file({"weight": torch.zeros(1)}, path, {"format": "learned_envs agent 1", "config": "{}"})
    with pytest.raises(AgentError, match="is damaged"):
        load_agent(path)


def test_agent_of_another_environment_is_refused() -> None:
    box = gym.spaces.Box(-1, 1, (3,), np.float32)
    with pytest.raises(AgentError, match="num_actions 6, the environment 3"):
        Agent(PICTURES).check_fits(gym.spaces.Box(0, 255, (4, 64, 64), np.uint8), gym.spaces.Discrete(3))
    with pytest.raises(AgentError, match=r"low .* trained for another"):
        Agent(NUMBERS).check_fits(box, gym.spaces.Box(-1, 1, (2,), np.float32))
    for space in (gym.spaces.MultiBinary(2), gym.spaces.Box(-np.inf, 1, (2,), np.float32)):
        with pytest.raises(AgentError, match="The agent takes actions"):
            AgentConfig.of(box, space)
    for space in (gym.spaces.Discrete(3), gym.spaces.Box(0, 255, (4, 20, 64), np.uint8)):
        with pytest.raises(AgentError, match="The agent sees"):
            AgentConfig.of(space, gym.spaces.Discrete(3))


def test_recording_agent_sees_the_stacks_of_the_game(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, rng, seen = AgentPolicy(Agent(PICTURES).eval(), 0.0), np.random.default_rng(0), []
    forward = policy.agent.forward
    monkeypatch.setattr(policy.agent, "forward", lambda stack: (seen.append(stack), forward(stack))[1])
    game = make_real("LearnedPong-v0")
    observation, _ = game.reset(seed=0)
    for _ in range(6):
        action = policy.act(observation[-1], rng)
        assert np.array_equal(seen[-1][0].numpy(), observation)
        observation, *_ = game.step(action)
    game.close()


def test_recording_agent_acts_at_random_in_the_given_share_of_steps() -> None:
    agent = Agent(PICTURES).eval()
    with torch.no_grad():
        assert agent.actor.bias is not None
        agent.actor.bias.copy_(torch.tensor([0.0, 0, 0, 50, 0, 0]))
    rng, frame = np.random.default_rng(0), np.zeros((64, 64), np.uint8)
    always = [AgentPolicy(agent, 0.0).act(frame, rng) for _ in range(50)]
    sometimes = [AgentPolicy(agent, 0.6).act(frame, rng) for _ in range(600)]
    assert set(always) == {3}
    assert np.mean(np.array(sometimes) != 3) == pytest.approx(0.5, abs=0.08)  # one in six random actions is a 3
