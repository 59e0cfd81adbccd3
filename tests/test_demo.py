"""The demonstration on small models with random weights: what it films, what it measures, and how it does without ALE."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray
from PIL import Image, ImageSequence

import learned_envs
from learned_envs.cli import main
from learned_envs.demo import choose_player, film, measure_speed
from learned_envs.environment import AtariConfig
from learned_envs.envs.single import LearnedEnv
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.twm.world_model import TransformerWorldModel
from tests.tiny import tiny_config, tiny_starts

_PONG = AtariConfig(
    kind="atari",
    name="Pong",
    options={},
    num_actions=6,
    action_meanings=("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"),
    max_episode_steps=27_000,
    reward="none, the weights are random",
    packages={},
)
_WITH_ALE = [520, 284]  # two pictures and the gap between them, under a bar of text
_ALONE = [256, 284]


@pytest.fixture(scope="module")
def pong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the actions of the real Pong, whose episodes never end by themselves."""
    folder = tmp_path_factory.mktemp("demo") / "snapshot"
    config = replace(tiny_config("compact"), num_actions=6)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = TransformerWorldModel(config).eval()
        bias = model.dynamics.discount_head[-1].bias
        assert isinstance(bias, torch.Tensor)
        bias.fill_(20)
    write_snapshot(folder, SnapshotConfig("LearnedPong-v0", "twm", config, _PONG, {}), model, tiny_starts(config), {})
    return folder


class _Notes(gym.Wrapper):
    """Notes what a game was told and what it showed since its last reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self.options, self.actions, self.rewards, self.observations = options, [], [], [observation]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self.actions.append(action)
        self.observations.append(result[0])
        self.rewards.append(result[1])
        return result


def _demo(folder: Path, out: Path) -> None:
    main(["demo", str(folder), "--num-envs", "2", "--steps", "3", "--out", str(out)])


def _films(out: Path) -> dict[str, list[int]]:
    """Width and height of the film's pictures and of the contact sheet."""
    sizes = {}
    for path in out.iterdir():
        with Image.open(path) as picture:
            picture.load()
            sizes[path.name] = list(picture.size)
    return sizes


def test_demo_measures_both_and_films_them_side_by_side(
    pong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ale_py")
    out = tmp_path / "new" / "out"
    _demo(pong, out)
    text = capsys.readouterr().out
    speeds = [float(number.replace(",", "")) for number in re.findall(r"([\d,]+) steps/s", text)]
    ratio = re.search(r"imagined / emulator +([\d.e+]+)", text)
    assert len(speeds) == 2 and ratio is not None
    assert float(ratio[1]) == pytest.approx(speeds[0] / speeds[1], rel=0.05)
    assert _films(out) == {"film.gif": _WITH_ALE, "contact_sheet.png": [88 + 8 * 264, 28 + 2 * 264]}
    with Image.open(out / "film.gif") as gif:
        assert len(ImageSequence.all_frames(gif)) == 91
    assert [line.strip() for line in text.splitlines()[-2:]] == [str(out / "film.gif"), str(out / "contact_sheet.png")]


@pytest.mark.parametrize("package", ["ale_py", "cv2"])
def test_demo_without_the_emulator_films_the_learned_game_alone(
    pong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    _demo(pong, tmp_path)
    text = capsys.readouterr().out
    assert package in text and 'pip install "learned-envs[atari]"' in text
    assert "imagined, pixels decoded" in text and "ratio" not in text
    assert "Filmed learned for 90 steps" in text
    assert _films(tmp_path) == {"film.gif": _ALONE, "contact_sheet.png": [88 + 8 * 264, 28 + 264]}


def test_demo_of_a_model_without_a_known_twin_goes_on_alone(
    tiny_snapshot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _demo(tiny_snapshot, tmp_path)
    assert "without the real game" in capsys.readouterr().out
    assert _films(tmp_path)["film.gif"] == _ALONE


def test_demo_of_a_folder_named_like_an_id(
    pong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree(pong, tmp_path / "LearnedHarvest-v0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    main(["demo", "./LearnedHarvest-v0", "--num-envs", "2", "--steps", "3", "--out", "out"])
    assert "2 games of LearnedPong-v0" in capsys.readouterr().out
    assert _films(tmp_path / "out")["film.gif"] == _ALONE


def test_seed_below_zero_is_refused_before_anything_is_written(
    pong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["demo", str(pong), "--seed", "-1", "--out", str(tmp_path / "out")])
    assert "seed is -1, expected a whole number of at least 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_film_gives_both_games_the_same_start_and_the_same_actions(pong: Path) -> None:
    pytest.importorskip("ale_py")
    real, learned = _Notes(learned_envs.make_real("LearnedPong-v0")), _Notes(LearnedEnv(str(pong)))
    games = film(learned, real, choose_player(_PONG), seed=3)
    assert list(games) == ["real", "learned"]
    assert games["real"].shape == games["learned"].shape == (91, 4, 64, 64)
    assert (games["real"][0] == games["learned"][0]).all()
    assert (games["real"][0] != games["real"][1]).any()
    assert learned.actions == real.actions[-90:]
    assert len(set(learned.actions)) > 1, "the player plays"
    assert learned.options is not None
    before = slice(len(real.observations) - 90 - 24, len(real.observations) - 90)
    assert (learned.options["observations"] == np.stack(real.observations[before])).all()
    assert learned.options["actions"].tolist() == real.actions[before][:-1]
    assert learned.options["rewards"].tolist() == real.rewards[before][:-1]


class _Clock(gym.Env):
    """A game that shows its episode in the first frame of a stack, and its step in the last."""

    observation_space = gym.spaces.Box(0, 255, (4, 64, 64), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.episode = self.time = 0
        self.options: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode, self.time, self.options = self.episode + 1, 0, options or {}
        return self._show(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._show(), float(self.time), False, False, {}

    def _show(self) -> NDArray[np.uint8]:
        observation = np.zeros((4, 64, 64), np.uint8)
        observation[0], observation[-1] = self.episode, self.time
        return observation


class _Late:
    """Counts its actions, and sees play only in the second episode, from its thirtieth step on."""

    def __init__(self) -> None:
        self.acts = 0

    def act(self, observation: NDArray[np.uint8]) -> int:
        self.acts += 1
        return self.acts

    def sees_play(self, observation: NDArray[np.uint8]) -> bool:
        return observation[0, 0, 0] == 2 and observation[-1, 0, 0] >= 30


def test_context_is_the_newest_of_one_episode_from_when_play_is_on() -> None:
    learned = _Clock()
    games = film(learned, gym.wrappers.TimeLimit(_Clock(), 50), _Late())
    observations = learned.options["observations"]
    assert observations[:, 0, 0, 0].tolist() == [2] * 24
    assert observations[:, -1, 0, 0].tolist() == list(range(7, 31))
    assert learned.options["actions"].tolist() == list(range(50 + 8, 50 + 31)), "fifty were of the first episode"
    assert learned.options["rewards"].tolist() == list(range(8, 31))
    assert learned.options["rewards"].dtype == np.float32
    assert games["real"][:, -1, 0, 0].tolist() == list(range(30, 51)), "the film ends with the episode"
    assert len(games["learned"]) == 21


def test_film_ends_with_the_game(pong: Path) -> None:
    games = film(gym.wrappers.TimeLimit(LearnedEnv(str(pong)), 7), None, choose_player(_PONG), seed=0)
    assert games["learned"].shape == (8, 4, 64, 64)


def test_same_seed_makes_the_same_film(pong: Path) -> None:
    player = replace(_PONG, name="Boxing")
    films = [film(LearnedEnv(str(pong)), None, choose_player(player, seed), seed)["learned"] for seed in (1, 1, 2)]
    assert (films[0] == films[1]).all()
    assert (films[0] != films[2]).any()


def test_player_of_pong_keeps_its_paddle_near_the_ball() -> None:
    pytest.importorskip("ale_py")
    real = learned_envs.make_real("LearnedPong-v0")
    player = choose_player(_PONG)
    observation, _ = real.reset(seed=0)
    points = 0
    for _ in range(600):
        observation, reward, *_ = real.step(player.act(observation))
        points += float(reward) > 0
    assert points >= 1, "it wins a point now and then"


def test_player_of_other_games_holds_its_actions() -> None:
    player = choose_player(replace(_PONG, name="Boxing"), seed=0)
    actions = np.array([player.act(np.zeros((4, 64, 64), np.uint8)) for _ in range(500)])
    assert set(actions) == set(range(6))
    assert 0.7 < (actions[1:] == actions[:-1]).mean() < 0.95


def test_speed_counts_the_steps_of_all_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = [_Clock(), _Clock()]
    env = SyncVectorEnv([lambda clock=clock: clock for clock in clocks])
    calls = []
    monkeypatch.setattr("learned_envs.demo.time.perf_counter", lambda: clocks[0].time / 100)
    assert measure_speed(env, 10, advance=lambda: calls.append(1)) == pytest.approx(200)
    assert len(calls) == 10
    assert [clock.time for clock in clocks] == [11, 11], "one step each to warm up"
