"""What every learned environment promises, checked on any of them.

Gymnasium checks single environments and has no checker for vector environments: this is one. A check takes a `Subject`
and raises an AssertionError that names the first difference: the step, the environment, and both values.

Environments of different batch sizes are compared up to rounding: pictures by one grey level, numbers by 1e-4 of the largest.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

import learned_envs
from learned_envs.envs.batched import BatchedEnv
from learned_envs.envs.unbatched import UnbatchedEnv
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.nn.noise import uniform
from learned_envs.snapshot import read_snapshot
from learned_envs.starts import StartKind
from learned_envs.world_model import WorldModel

__all__ = [
    "Faces",
    "Step",
    "Subject",
    "assert_same",
    "assert_same_rollout",
    "count_actions",
    "random_actions",
    "random_context",
    "rollout",
    "single_context",
    "steady_action",
    "still",
]

_GREY_LEVELS = 1
_RELATIVE = 1e-4
Array = NDArray[Any]


class Faces(Protocol):
    """An environment that comes alone and in batches."""

    def vector(self, num_envs: int, **keywords: Any) -> VectorEnv:
        """A batch of it."""
        ...

    def single(self, **keywords: Any) -> gym.Env:
        """One of it."""
        ...


@dataclass(frozen=True)
class Subject:
    """A learned environment under test.

    Args:
        name: What test reports call it.
        id: What Gymnasium is called with.
        folder: Folder of its snapshot.
        keywords: What every maker is called with beside the id.
    """

    name: str
    id: str
    folder: Path
    keywords: dict[str, Any] = field(default_factory=dict)

    def vector(self, num_envs: int, **keywords: Any) -> BatchedEnv:
        """A batch of it."""
        env = gym.make_vec(self.id, num_envs=num_envs, **self.keywords, **keywords)
        assert isinstance(env, BatchedEnv)
        return env

    def single(self, **keywords: Any) -> gym.Env:
        """One of it, in Gymnasium's usual wrappers."""
        return gym.make(self.id, **self.keywords, **keywords)

    def bare(self, **keywords: Any) -> UnbatchedEnv:
        """One of it, without wrappers."""
        env = self.single(**keywords).unwrapped
        assert isinstance(env, UnbatchedEnv)
        return env

    def model(self) -> WorldModel:
        """Its world model, as functions."""
        return learned_envs.load(self.keywords.get("model", self.id))


@dataclass(frozen=True)
class Step:
    """What a batch returned, as NumPy arrays. The step before the first is the reset, with no rewards and flags."""

    observations: Array
    rewards: Array
    terminated: Array
    truncated: Array
    infos: dict[str, Any]

    @property
    def over(self) -> Array:
        """Which episodes ended."""
        return self.terminated | self.truncated


def count_actions(env: gym.Env | VectorEnv) -> int:
    """Size of the action set."""
    space = env.single_action_space if isinstance(env, VectorEnv) else env.action_space
    assert isinstance(space, gym.spaces.Discrete)
    return int(space.n)


def random_actions(env: VectorEnv, steps: int, seed: int = 0) -> Array:
    """Random actions, shape (steps, num_envs, ...): int64, or float32 in the space."""
    return _draw_actions(env, (steps, env.num_envs), np.random.default_rng(seed))


def _draw_actions(env: VectorEnv, size: tuple[int, ...], rng: np.random.Generator) -> Array:
    space = env.single_action_space
    if isinstance(space, gym.spaces.Box):
        return rng.uniform(space.low, space.high, (*size, *space.shape)).astype(np.float32)
    return rng.integers(count_actions(env), size=size)


def soft_actions(env: VectorEnv, steps: int) -> list[Tensor]:
    """Actions to take gradients for: undecided probabilities, or numbers well within their bounds."""
    if isinstance(env.single_action_space, gym.spaces.Box):
        return [torch.from_numpy(action / 2).requires_grad_() for action in random_actions(env, steps)]
    count = count_actions(env)
    return [torch.full((env.num_envs, count), 1 / count).requires_grad_() for _ in range(steps)]


def still(env: VectorEnv) -> Array:
    """A zero for each environment, of the dtype of actions."""
    return np.zeros((env.num_envs, *(env.single_action_space.shape or ())), env.single_action_space.dtype)


def steady_action(env: gym.Env, number: int) -> Any:
    """One of three different actions of a single environment, by its number."""
    space = env.action_space
    return (
        number if isinstance(space, gym.spaces.Discrete) else np.full(space.shape or (), number / 2 - 0.5, space.dtype)
    )


def random_context(env: VectorEnv, steps: int, seed: int = 0) -> dict[str, Array]:
    """The options that continue a context of noise, one for each environment."""
    rng = np.random.default_rng(seed)
    space = env.single_observation_space
    assert isinstance(space, gym.spaces.Box)
    between = (env.num_envs, steps - 1)
    return {
        "observations": (_draw_frames if space.dtype == np.uint8 else _draw_states)(env, space, steps, rng),
        "actions": _draw_actions(env, between, rng),
        "rewards": rng.integers(-1, 2, size=between).astype(np.float32),
    }


def _draw_frames(env: VectorEnv, space: gym.spaces.Box, steps: int, rng: np.random.Generator) -> Array:
    stack, *size = space.shape
    frames = rng.integers(256, size=(env.num_envs, stack - 1 + steps, *size), dtype=np.uint8)
    return np.stack([frames[:, step : step + stack] for step in range(steps)], 1)


def _draw_states(env: VectorEnv, space: gym.spaces.Box, steps: int, rng: np.random.Generator) -> Array:
    """States within their bounds, whose clock counts from 3."""
    assert isinstance(env, LearnedVectorEnv) and env.pretrained.system is not None
    low, high = np.maximum(space.low, -1.0), np.minimum(space.high, 2.0)
    states = rng.uniform(low, high, (env.num_envs, steps, *space.shape)).astype(np.float32)
    states[:, :, env.pretrained.system.state_dim] = np.arange(3, 3 + steps)
    return states


def single_context(subject: "Subject", steps: int) -> dict[str, Array]:
    """The options that continue a context of noise in a single environment."""
    return {key: value[0] for key, value in random_context(subject.vector(1), steps).items()}


def rollout(env: VectorEnv, actions: Any, reset: dict[str, Any] | None = None) -> list[Step]:
    """Reset a batch, step through the actions, and return copies of all that was returned, reset first.

    Args:
        env: The batch; its autoreset mode must not be DISABLED.
        actions: What `step` takes, one after the other, such as an array of shape (steps, num_envs).
        reset: Keywords of `reset`; None goes on without one.
    """
    steps = []
    if reset is not None:
        observations, infos = env.reset(**reset)
        nothing = np.zeros(env.num_envs)
        steps.append(Step(_array(observations), nothing, nothing.astype(bool), nothing.astype(bool), _arrays(infos)))
    for action in actions:
        steps.append(_step(env, action))
    return steps


def _step(env: VectorEnv, action: Any) -> Step:
    """Copies of what a step returned."""
    observations, rewards, terminated, truncated, infos = env.step(action)
    return Step(_array(observations), _array(rewards), _array(terminated), _array(truncated), _arrays(infos))


def _only(step: Step, index: list[int]) -> Step:
    """The environments with the given indices."""
    return Step(step.observations[index], step.rewards[index], step.terminated[index], step.truncated[index], {})


def play_singles(
    subject: Faces, mode: AutoresetMode, seed: int, actions: Array, max_episode_steps: int
) -> Iterator[Step]:
    """What a batch in an autoreset mode has to return, acted out with single environments.

    In DISABLED mode the caller is taken to reset what ended before every step.
    """
    envs = [subject.single(max_episode_steps=max_episode_steps) for _ in range(actions.shape[1])]
    current = [env.reset(seed=seed + index)[0] for index, env in enumerate(envs)]
    nothing = np.zeros(len(envs))
    yield Step(np.stack(current), nothing, nothing.astype(bool), nothing.astype(bool), {})
    over = [False] * len(envs)
    for action in actions:
        final, begun = [], []
        rewards, terminated, truncated = nothing.copy(), nothing.astype(bool), nothing.astype(bool)
        for index, env in enumerate(envs):
            if over[index] and mode is not AutoresetMode.SAME_STEP:
                current[index] = env.reset()[0]
            begun.append(current[index])
            if not over[index] or mode is not AutoresetMode.NEXT_STEP:
                current[index], rewards[index], terminated[index], truncated[index], _ = env.step(action[index])
                over[index] = bool(terminated[index] or truncated[index])
            else:
                over[index] = False
            final.append(current[index])
            if over[index] and mode is AutoresetMode.SAME_STEP:
                current[index] = env.reset()[0]
                over[index] = False
        infos = {"final_obs": np.stack(final), "begun": np.stack(begun)}
        yield Step(np.stack(current), rewards, terminated, truncated, infos)


def assert_same(actual: Any, expected: Any, where: str, tolerance: float = 0) -> None:
    """Compare two arrays element by element and name the first environment that differs."""
    actual, expected = _array(actual), _array(expected)
    assert actual.shape == expected.shape, f"{where}: shape {actual.shape}, expected {expected.shape}"
    difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    if not (difference <= tolerance).all():
        first = tuple(int(index) for index in np.argwhere(~(difference <= tolerance))[0])
        raise AssertionError(
            f"{where}, environment {first[0] if first else '-'}: {actual[first]} at {first}, expected {expected[first]} "
            f"({int((~(difference <= tolerance)).sum())} of {difference.size} elements differ)"
        )


def assert_same_rollout(actual: list[Step], expected: list[Step], where: str, exact: bool = True) -> None:
    """Compare two rollouts step by step."""
    assert len(actual) == len(expected)
    for index, (mine, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert_same_step(mine, theirs, f"{where}, step {index}", exact)


def assert_alike(actual: Any, expected: Any, where: str) -> None:
    """Compare two arrays up to rounding: by a grey level if they are pictures, else relative to the largest number."""
    numbers = _array(expected)
    picture = numbers.dtype == np.uint8
    tolerance = _GREY_LEVELS if picture else _RELATIVE * max(1.0, float(np.abs(numbers).max(initial=0)))
    assert_same(actual, expected, where, tolerance)


def assert_same_step(actual: Step, expected: Step, where: str, exact: bool = True) -> None:
    """Compare what two batches returned."""
    compare = assert_same if exact else assert_alike
    compare(actual.observations, expected.observations, f"{where}, observations")
    compare(actual.rewards, expected.rewards, f"{where}, rewards")
    assert_same(actual.terminated, expected.terminated, f"{where}, terminated")
    assert_same(actual.truncated, expected.truncated, f"{where}, truncated")


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every array or tensor in nested tuples and dicts, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}[{key!r}]")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _array(value: Any) -> Array:
    return value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else np.array(value)


def _arrays(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: _arrays(value) if isinstance(value, dict) else _array(value) for key, value in infos.items()}


# The checks. What each protects is in its name; the suite in test_vector_contract.py runs them.


def check_spaces_and_dtypes(subject: Subject, device: str = "cpu") -> None:
    """Everything returned has the announced shape, dtype, type and device."""
    for output in ("numpy", "torch"):
        env = subject.vector(3, output=output, device=device)
        assert env.num_envs == 3
        assert env.observation_space == gym.vector.utils.batch_space(env.single_observation_space, 3)
        assert env.action_space == gym.vector.utils.batch_space(env.single_action_space, 3)
        observations, infos = env.reset(seed=0)
        assert infos == {}
        env.action_space.seed(0)
        for _ in range(3):
            assert _array(observations) in env.observation_space
            observations, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
            expected = {
                "observations": (observations, env.observation_space.shape, env.observation_space.dtype),
                "rewards": (rewards, (3,), np.float32),
                "terminated": (terminated, (3,), np.bool_),
                "truncated": (truncated, (3,), np.bool_),
            }
            for name, (array, shape, dtype) in expected.items():
                _check_kind(array, output, device, name)
                assert tuple(array.shape) == shape, f"{name} has shape {tuple(array.shape)}, expected {shape}"
                assert _array(array).dtype == dtype, f"{name} has dtype {array.dtype}, expected {dtype}"
            for path, value in leaves(infos, "infos"):
                _check_kind(value, output, device, path)
                assert len(value) == 3, f"{path} has {len(value)} rows, expected one for each of 3 environments"
        env.close()
        env.close()


def _check_kind(value: Any, output: str, device: str, path: str) -> None:
    assert isinstance(value, np.ndarray if output == "numpy" else Tensor), f"{path} is {type(value)}, output={output!r}"
    if isinstance(value, Tensor):
        assert value.device.type == torch.device(device).type, f"{path} is on {value.device}, expected {device}"


def check_numpy_equals_torch(subject: Subject, device: str = "cpu") -> None:
    """Both outputs tell the same episodes."""
    envs = [subject.vector(3, output=output, device=device, max_episode_steps=4) for output in ("numpy", "torch")]
    actions = random_actions(envs[0], 10)
    arrays, tensors = (rollout(env, actions, {"seed": 5}) for env in envs)
    assert_same_rollout(arrays, tensors, "numpy against torch")


def check_accepts_actions_of_any_kind(subject: Subject) -> None:
    """NumPy arrays, tensors and lists of actions do the same."""
    actions = random_actions(subject.vector(3), 4)
    expected = rollout(subject.vector(3), actions, {"seed": 1})
    widths = ["int32", "uint8", "uint32"] if actions.dtype == np.int64 else ["float64"]
    kinds = {width: actions.astype(width) for width in widths}
    for name, kind in {**kinds, "tensor": torch.from_numpy(actions), "list": actions.tolist()}.items():
        assert_same_rollout(rollout(subject.vector(3), kind, {"seed": 1}), expected, name)


def check_equals_single_environments(subject: Faces, mode: AutoresetMode, compared: slice = slice(None)) -> None:
    """Environment i of a batch seeded with s plays what a single one seeded with s + i plays, episode after episode.

    Args:
        subject: What is checked.
        mode: Of the batch.
        compared: Which frames are compared of an episode's last observation.
    """
    env = subject.vector(3, autoreset_mode=mode, max_episode_steps=4)
    actions = random_actions(env, 14)
    expected = play_singles(subject, mode, 40, actions, 4)
    where = f"{mode.value} batch against singles"
    first = next(expected)
    observations, _ = env.reset(seed=40)
    assert_alike(observations, first.observations, f"{where}, reset")
    over, episodes = np.zeros(3, bool), 0
    for index, (action, wanted) in enumerate(zip(actions, expected, strict=True), 1):
        if mode is AutoresetMode.DISABLED and over.any():
            begun, _ = env.reset(options={"reset_mask": over})
            assert_alike(begun, wanted.infos["begun"], f"{where}, reset before step {index}")
        step = _step(env, action)
        over = step.over
        episodes += over.sum()
        if mode is AutoresetMode.SAME_STEP and over.any():
            final = step.infos["final_obs"][over, compared]
            expected_final = wanted.infos["final_obs"][over, compared]
            assert_alike(final, expected_final, f"{where}, step {index}, final_obs")
            assert_same(step.infos["_final_obs"], over, f"{where}, step {index}, _final_obs")
        elif over.any():
            last = step.observations[over, compared]
            assert_alike(last, wanted.observations[over, compared], f"{where}, step {index}, last")
            step.observations[over] = wanted.observations[over]
        assert_same_step(step, wanted, f"{where}, step {index}", exact=False)
    assert episodes >= 6, "the rollout was too short to show a reset in every environment"


def check_list_of_seeds(subject: Subject) -> None:
    """A list gives one seed each; where it says None, the running generator goes on."""
    env, other = subject.vector(3), subject.vector(3)
    actions = random_actions(env, 5)
    expected = rollout(env, actions, {"seed": 7})
    assert_same_rollout(rollout(other, actions, {"seed": [7, 8, 9]}), expected, "list of seeds")
    assert_same_rollout(rollout(other, actions, {"seed": np.array([7, 8, 9])}), expected, "array of seeds")
    going_on = rollout(env, actions, {})
    mixed = rollout(other, actions, {"seed": [7, None, 9]})
    for index, (mine, again, new) in enumerate(zip(mixed, expected, going_on, strict=True)):
        assert_same(mine.observations[[0, 2]], again.observations[[0, 2]], f"seeded again, step {index}")
        assert_same(mine.observations[1], new.observations[1], f"seed None, step {index}")


def check_reset_repeats_only_when_seeded(subject: Subject) -> None:
    """A seed brings an episode back; without one, no reset repeats the episode before."""
    # From anywhere, since real episodes may all begin with the same picture and then, given the same actions, go alike.
    env = subject.vector(4, starts="anywhere")
    actions = random_actions(env, 8)
    seeded = rollout(env, actions, {"seed": 11})
    follows = rollout(env, actions, {})
    assert_same_rollout(rollout(env, actions, {"seed": 11}), seeded, "second reset(seed=11)")
    assert_same_rollout(rollout(env, actions, {}), follows, "reset() after the second reset(seed=11)")
    more = [rollout(env, actions, {}) for _ in range(2)]
    fresh = [rollout(subject.vector(4, starts="anywhere"), actions, {}) for _ in range(2)]
    for before, after in ((seeded, follows), (follows, more[0]), more, fresh):
        pairs = list(zip(before, after, strict=True))
        differs = np.any([(a.observations != b.observations).reshape(4, -1).any(1) for a, b in pairs], 0)
        differs |= np.any([(a.rewards != b.rewards) | (a.terminated != b.terminated) for a, b in pairs], 0)
        # A start may come up twice in a row by chance, and a game may then go the same way; not in all four at once.
        assert differs.any(), "an unseeded reset repeated the episodes before it"


def check_partial_reset(subject: Subject, mode: AutoresetMode) -> None:
    """A mask, of NumPy or torch, resets what it names, leaves the rest alone, and the caller's options as they were."""
    for kind in (np.asarray, torch.as_tensor):
        env, twin = (subject.vector(3, autoreset_mode=mode) for _ in range(2))
        actions = random_actions(env, 6)
        actions[:, 1] = 0
        before, untouched = (rollout(which, actions[:1], {"seed": 3})[-1] for which in (env, twin))
        mask = kind(np.array([False, True, False]))
        options = {"reset_mask": mask}
        observations, infos = env.reset(seed=[50, 60, 70], options=options)
        assert options.keys() == {"reset_mask"} and options["reset_mask"] is mask, "options were changed"
        assert_same(mask, [False, True, False], "the caller's mask")
        assert infos == {}
        assert_same(observations[[0, 2]], before.observations[[0, 2]], "outside the mask")
        assert_same(before.observations, untouched.observations, "twins")
        lone = subject.vector(3, autoreset_mode=mode)
        first, _ = lone.reset(seed=[50, 60, 70])
        assert_same(observations[1], first[1], "inside the mask, seeded")
        for index, action in enumerate(actions[1:]):
            if mode is AutoresetMode.DISABLED:
                states = [which.get_state() for which in (env, twin, lone)]
                if any(bool(state.ended.any()) for state in states):
                    break
            mine, theirs, new = (_step(which, action) for which in (env, twin, lone))
            where = f"step {index} after the reset"
            # A sequence model embeds one token more where a window begins, and kernels round by the size of a batch.
            exact = mine.observations.dtype == np.uint8
            assert_same_step(_only(mine, [0, 2]), _only(theirs, [0, 2]), f"{where}, outside the mask", exact)
            assert_same_step(_only(mine, [1]), _only(new, [1]), f"{where}, inside the mask", exact)


def check_returned_arrays_are_the_callers(subject: Subject, mode: AutoresetMode, output: str) -> None:
    """Writing into what was returned changes nothing, and nothing returned is changed later."""
    env, twin = (subject.vector(2, autoreset_mode=mode, output=output, max_episode_steps=3) for _ in range(2))
    actions = random_actions(env, 9)
    kept: list[tuple[str, Any, Array]] = []

    def returned(call: int, mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
        for (path, array), (_, expected) in zip(leaves(mine, "result"), leaves(theirs, "result"), strict=True):
            assert_same(array, expected, f"call {call}, {path}, after earlier results were overwritten")
            array[...] = 1  # vandalise
        kept.extend((f"call {call}, {path}", array, _array(array)) for path, array in leaves(theirs, "result"))
        pointers = [_pointer(array) for _, array in leaves(theirs, "result")]
        assert len(set(pointers)) == len(pointers), f"call {call} returned the same memory twice"

    returned(0, env.reset(seed=0), twin.reset(seed=0))
    for call, action in enumerate(actions, 1):
        mine, theirs = env.step(action.copy()), twin.step(action)
        over = _array(theirs[2]) | _array(theirs[3])
        returned(call, mine, theirs)
        if mode is AutoresetMode.DISABLED and over.any():
            options = {"reset_mask": over}
            returned(call, env.reset(options=options), twin.reset(options=options))
    for path, array, copied in kept:
        assert_same(array, copied, f"{path}, changed after it was returned")


def _pointer(array: Any) -> int:
    return array.data_ptr() if isinstance(array, Tensor) else array.__array_interface__["data"][0]


def check_given_arrays_stay_the_callers(subject: Subject, output: str) -> None:
    """What the caller passed in can be reused at once: the environment keeps no view of it, and writes nothing there."""
    env, twin = (subject.vector(2, output=output) for _ in range(2))
    for resets in range(2):
        options = random_context(env, 3, seed=resets)
        if output == "torch":
            options = {key: torch.from_numpy(value) for key, value in options.items()}
        kept = copy.deepcopy(options)
        twin.reset(seed=0, options=kept)
        env.reset(seed=0, options=options)
        for key, value in options.items():
            assert_same(value, kept[key], f"options[{key!r}] after reset")
            value[...] = 0
        for step in range(5):
            action = np.ones_like(still(env))
            expected = twin.step(np.ones_like(action))
            for mine, theirs in zip(env.step(action)[:4], expected[:4], strict=True):
                assert_same(mine, theirs, f"reset {resets}, step {step}, after the given context was overwritten")
            assert_same(action, np.ones_like(action), "the caller's actions")
            action[...] = 0


def check_fork(subject: Subject, mode: AutoresetMode) -> None:
    """A saved state brings the identical future back, as often as wanted, here and in another batch."""
    env, other = (subject.vector(3, autoreset_mode=mode, max_episode_steps=5) for _ in range(2))
    actions = random_actions(env, 11)
    rollout(env, actions[:2], {"seed": 21})
    state = env.get_state()
    future = rollout(env, actions[2:])
    for name, fork in (("same batch", env), ("other batch", other)):
        for attempt in range(2):
            given = state.clone()
            fork.set_state(given)
            given.map(torch.Tensor.zero_)  # the caller's to overwrite
            assert_same_rollout(rollout(fork, actions[2:]), future, f"{name}, attempt {attempt}")
    # A chosen environment, repeated: three copies of the second one live its life.
    env.set_state(state.take(torch.tensor([1, 1, 1])))
    copies = rollout(env, actions[2:, [1, 1, 1]])
    for index, (step, wanted) in enumerate(zip(copies, future, strict=True)):
        assert_same_step(step, _only(wanted, [1, 1, 1]), f"three copies of one, step {index}", exact=False)


def check_batch_size_does_not_matter(subject: Subject) -> None:
    """An environment draws the same noise, and so lives the same life, in a small batch and in a large one."""
    small, large = (subject.vector(num_envs, max_episode_steps=6) for num_envs in (2, 9))
    actions = random_actions(large, 14)
    mine, theirs = small.reset(seed=80)[0], large.reset(seed=80)[0]
    assert_alike(mine, theirs[:2], "reset")
    for index, action in enumerate(actions):
        first, second = _step(small, action[:2]), _step(large, action)
        assert_same_step(first, _only(second, [0, 1]), f"2 against 9 environments, step {index}", exact=False)
        states = [env.get_state() for env in (small, large)]
        noise = [uniform(state.keys, state.draws, 64)[:2] for state in states]
        assert_same(noise[0], noise[1], f"noise, step {index}")


def check_memory_is_bounded(subject: Subject) -> None:
    """The two-hundredth step holds as many bytes as the third."""
    env = subject.vector(2, output="torch")
    env.reset(seed=0)
    sizes = []
    for steps in (3, 197):
        for _ in range(steps):
            env.step(torch.from_numpy(still(env)))
        state = env.get_state()
        sizes.append({name: (tuple(x.shape), x.dtype, x.untyped_storage().nbytes()) for name, x in state.tensors()})
    assert sizes[0] == sizes[1]
    own = env._state  # not the copy: a view of an ever longer tensor would hide in it
    assert own is not None
    held = {name: x.untyped_storage().nbytes() for name, x in own.tensors()}
    for name, tensor in own.tensors():
        limit = 2 * tensor.numel() * tensor.element_size() + 4096
        assert held[name] <= limit, f"{name} shows {limit // 2} bytes of a storage of {held[name]}"


def check_global_randomness_is_left_alone(subject: Subject) -> None:
    """Making and playing a learned environment does not disturb the caller's own generators."""
    torch.manual_seed(4)
    np.random.seed(4)
    before, numpy_before = torch.get_rng_state(), np.random.random(3)
    np.random.seed(4)
    env = subject.vector(2)
    rollout(env, [still(env)] * 3, {"seed": 0})
    rollout(env, [still(env)] * 3, {})
    assert torch.equal(torch.get_rng_state(), before), "torch's global generator was used"
    assert (np.random.random(3) == numpy_before).all(), "NumPy's global generator was used"


def check_gradients_reach_actions(subject: Subject) -> None:
    """What follows has gradients for this and for earlier actions, until `detach` cuts them."""
    env = subject.vector(2, output="torch", differentiable=True)
    *plan, last = soft_actions(env, 5)
    trials = ((seed, rollout(env, soft_actions(env, 5), {"seed": seed})) for seed in range(100))
    # One in which nothing ends on the way: gradients stop there.
    env.reset(seed=next(seed for seed, trial in trials if not any(step.over.any() for step in trial)))
    signals = [_signal(env.step(action)) for action in plan[:2]]
    now, before = torch.autograd.grad(signals[1].sum(), [plan[1], plan[0]], retain_graph=True)
    for name, gradient in (("the action itself", now), ("the action before", before)):
        assert gradient.isfinite().all(), f"the gradient for {name} is not finite"
        assert (gradient != 0).any(1).all(), f"the gradient for {name} is zero"
    env.detach()
    signals.append(_signal(env.step(plan[2])))
    cut, kept = torch.autograd.grad(signals[2].sum(), [plan[1], plan[2]], retain_graph=True, allow_unused=True)
    assert cut is None, "detach() did not cut the graph"
    assert kept is not None and (kept != 0).any(1).all()
    # A partial reset ends one episode; the other's past stays in the graph.
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(plan[3])
    signal = _signal(env.step(last))
    (gone,) = torch.autograd.grad(signal[0], plan[2], retain_graph=True, allow_unused=True)
    assert gone is None or (gone == 0).all(), "gradients leak through a reset"
    (kept,) = torch.autograd.grad(signal[1], plan[2], allow_unused=True)
    assert kept is not None and (kept[1] != 0).any(), "a partial reset cut the graph outside the mask"
    env.step(plan[3])
    env.reset()
    graph = [name for name, tensor in env.get_state().tensors() if tensor.requires_grad]
    assert not graph, f"a whole reset kept the graph of the episodes before it in {graph}"


def _signal(result: Any) -> Tensor:
    """What of a step has gradients: the reward and, if they are no pixels, the observations; some systems reward only the end."""
    observations, rewards = result[:2]
    return rewards + observations.flatten(1).sum(1) if observations.is_floating_point() else rewards


def check_one_hot_probabilities_equal_indices(subject: Subject) -> None:
    """An action given as certain is the action given as an index."""
    plain = subject.vector(2, output="torch")
    soft = subject.vector(2, output="torch", differentiable=True)
    actions = torch.from_numpy(random_actions(plain, 6))
    expected = rollout(plain, actions, {"seed": 2})
    one_hot = torch.nn.functional.one_hot(actions, count_actions(plain)).float()
    assert_same_rollout(rollout(soft, one_hot, {"seed": 2}), expected, "probabilities against indices", exact=False)
    assert_same_rollout(rollout(soft, actions, {"seed": 2}), expected, "indices in a differentiable environment")


def check_no_graph_unless_asked(subject: Subject) -> None:
    """Plain rollouts hold no graph, whatever the caller's grad mode."""
    env = subject.vector(2, output="torch")
    with torch.enable_grad():
        results = env.reset(seed=0)[:1] + env.step(torch.from_numpy(still(env)))[:4]
        assert not any(tensor.requires_grad for tensor in results)
        assert not any(tensor.requires_grad for _, tensor in env.get_state().tensors())


def check_metadata_is_not_shared(subject: Subject) -> None:
    """One environment's autoreset mode does not show up in another's metadata."""
    envs = {mode: subject.vector(1, autoreset_mode=mode) for mode in AutoresetMode}
    for mode, env in envs.items():
        assert env.metadata["autoreset_mode"] is mode
        assert env.autoreset_mode is mode
    assert "autoreset_mode" not in LearnedVectorEnv.metadata
    assert subject.vector(1).metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert subject.vector(1, autoreset_mode="SameStep").metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert "torch" not in subject.single().metadata, "check_env would look for a wrapper that does not exist"


def check_render_shows_the_newest_frame(subject: Subject) -> None:
    """Pictures are RGB, and show what the observation shows."""
    env = subject.vector(2, render_mode="rgb_array")
    env.reset(seed=0)
    observations = env.step(still(env))[0]
    pictures = env.render()
    assert pictures is not None and len(pictures) == 2
    for index, picture in enumerate(pictures):
        assert picture.dtype == np.uint8 and picture.shape == (256, 256, 3)
        for channel in range(3):
            assert_same(picture[::4, ::4, channel], observations[index, -1], f"picture {index}, channel {channel}")
            assert_same(picture[3::4, 3::4, channel], observations[index, -1], f"picture {index}, channel {channel}")
    env.step(still(env))
    assert_same(pictures[0][::4, ::4, 0], observations[0, -1], "picture after another step")


def check_real_context_equals_the_model(subject: Subject, steps: int) -> None:
    """Continuing a real context is `model.start` on it, for a batch and for one environment."""
    env = subject.vector(2)
    options = random_context(env, steps)
    observations, _ = env.reset(seed=9, options=options)
    assert_same(observations, options["observations"][:, -1], "first observation")
    model = subject.model()
    given = {key: torch.from_numpy(value) for key, value in options.items()}
    state = model.start(given["observations"], given["actions"], given["rewards"])
    actions = random_actions(env, 6)
    by_hand = list(_by_hand(model, state, torch.tensor([9, 10]), actions))
    ended = np.zeros(2, bool)
    for index, (action, wanted) in enumerate(zip(actions, by_hand, strict=True)):
        observations, rewards, terminated, truncated, _ = env.step(action)
        running = ~ended
        where = f"context of {steps}, step {index}"
        assert_same(observations[running], wanted[0][running], f"{where}, observations")
        assert_same(rewards[running], wanted[1][running], f"{where}, rewards")
        assert_same(terminated[running], wanted[2][running], f"{where}, terminated")
        ended |= terminated | truncated
    for which in range(2):
        single = subject.single()
        first, _ = single.reset(seed=9 + which, options={key: value[which] for key, value in options.items()})
        assert_same(first, options["observations"][which, -1], "first observation of a single")
        for index, action in enumerate(actions[:, which]):
            observation, reward, terminated, truncated, _ = single.step(action)
            where = f"single {which}, context of {steps}, step {index}"
            assert_alike(observation, by_hand[index][0][which], f"{where}, observation")
            assert_alike(reward, by_hand[index][1][which], f"{where}, reward")
            assert terminated == by_hand[index][2][which], f"{where}, terminated"
            if terminated or truncated:
                break


def check_model_by_hand_equals_every_face(subject: Subject, starts: StartKind) -> None:
    """The functions that `learned_envs.load` gives tell the episodes that the environments tell."""
    seed, steps = 30, 8
    env = subject.vector(3, starts=starts, autoreset_mode=AutoresetMode.SAME_STEP)
    actions = random_actions(env, steps)
    observations, _ = env.reset(seed=seed)
    model = subject.model()
    contexts = read_snapshot(subject.folder).starts.contexts(starts)
    bank = model.start(*contexts)
    keys = torch.arange(3) + seed
    choice = (uniform(keys, torch.zeros_like(keys), 1)[:, 0] * len(bank)).long()
    assert_same(observations, contexts[0][choice, -1], "start")
    ended = np.zeros(3, bool)
    by_hand = _by_hand(model, bank.take(choice), keys, actions)
    for index, (wanted, action) in enumerate(zip(by_hand, actions, strict=True)):
        observations, rewards, terminated, truncated, infos = env.step(action)
        over, shown = terminated | truncated, observations.copy()
        shown[over] = infos["final_obs"][over]
        running = ~ended
        assert_same(shown[running], wanted[0][running], f"step {index}, observations")
        assert_same(rewards[running], wanted[1][running], f"step {index}, rewards")
        assert_same(terminated[running], wanted[2][running], f"step {index}, terminated")
        ended |= over


def _by_hand(model: Any, state: Any, keys: Tensor, actions: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Observations, rewards and ends of episodes that were begun with the first draw of their keys."""
    with torch.no_grad():
        for step, action in enumerate(actions):
            noise = uniform(keys, torch.full_like(keys, step + 1), model.noise_size + 1)
            # Copied, as environments do: kernels round by how memory is aligned.
            state, prediction = model.step(state, torch.tensor(action), noise[:, :-1])
            ends = noise[:, -1] < prediction.end_probability
            yield model.observe(state).numpy(), prediction.reward.numpy(), ends.numpy()
