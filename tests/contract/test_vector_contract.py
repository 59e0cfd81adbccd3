"""Every learned environment keeps the promises of a batch; `vector_checker` holds the checks."""

import pytest
from gymnasium.vector import AutoresetMode

from learned_envs.starts import StartKind
from tests.contract import vector_checker as checker
from tests.contract.vector_checker import Subject

all_modes = pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name.lower())
both_outputs = pytest.mark.parametrize("output", ["numpy", "torch"])


def test_returns_what_its_spaces_announce(subject: Subject) -> None:
    checker.check_spaces_and_dtypes(subject)


@pytest.mark.gpu
def test_returns_what_its_spaces_announce_on_the_gpu(subject: Subject) -> None:
    checker.check_spaces_and_dtypes(subject, "cuda")


def test_numpy_and_torch_tell_the_same_episodes(subject: Subject) -> None:
    checker.check_numpy_equals_torch(subject)


@pytest.mark.gpu
def test_numpy_and_torch_tell_the_same_episodes_on_the_gpu(subject: Subject) -> None:
    checker.check_numpy_equals_torch(subject, "cuda")


def test_takes_actions_as_arrays_tensors_and_lists(subject: Subject) -> None:
    checker.check_accepts_actions_of_any_kind(subject)


@all_modes
def test_batch_equals_single_environments_over_several_episodes(subject: Subject, mode: AutoresetMode) -> None:
    checker.check_equals_single_environments(subject, mode)


def test_list_of_seeds_seeds_each_environment(subject: Subject) -> None:
    checker.check_list_of_seeds(subject)


def test_reset_repeats_an_episode_only_when_seeded(subject: Subject) -> None:
    checker.check_reset_repeats_only_when_seeded(subject)


@all_modes
def test_partial_reset_leaves_the_others_alone(subject: Subject, mode: AutoresetMode) -> None:
    checker.check_partial_reset(subject, mode)


@all_modes
@both_outputs
def test_writing_into_results_changes_nothing(subject: Subject, mode: AutoresetMode, output: str) -> None:
    checker.check_returned_arrays_are_the_callers(subject, mode, output)


@both_outputs
def test_given_contexts_and_actions_can_be_reused_at_once(subject: Subject, output: str) -> None:
    checker.check_given_arrays_stay_the_callers(subject, output)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name.lower())
def test_fork_repeats_the_identical_future(subject: Subject, mode: AutoresetMode) -> None:
    checker.check_fork(subject, mode)


def test_batch_size_does_not_change_an_environments_life(subject: Subject) -> None:
    checker.check_batch_size_does_not_matter(subject)


def test_memory_does_not_grow_with_the_episode(subject: Subject) -> None:
    checker.check_memory_is_bounded(subject)


def test_callers_random_generators_are_left_alone(subject: Subject) -> None:
    checker.check_global_randomness_is_left_alone(subject)


def test_gradients_of_rewards_reach_actions_until_detached(subject: Subject) -> None:
    checker.check_gradients_reach_actions(subject)


def test_certain_probabilities_act_like_indices(game: Subject) -> None:
    checker.check_one_hot_probabilities_equal_indices(game)


def test_plain_rollouts_build_no_graph(subject: Subject) -> None:
    checker.check_no_graph_unless_asked(subject)


def test_metadata_is_not_shared_between_instances(subject: Subject) -> None:
    checker.check_metadata_is_not_shared(subject)


def test_render_shows_the_newest_frame(game: Subject) -> None:
    checker.check_render_shows_the_newest_frame(game)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_real_context_continues_as_the_model_does(subject: Subject, steps: int) -> None:
    checker.check_real_context_equals_the_model(subject, steps)


@pytest.mark.parametrize("starts", ["initial", "anywhere"])
def test_model_by_hand_tells_the_same_episodes(subject: Subject, starts: StartKind) -> None:
    checker.check_model_by_hand_equals_every_face(subject, starts)
