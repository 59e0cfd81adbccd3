"""Recipes: complete, strict, and told apart."""

import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import training.recipe
from learned_envs.catalog import CATALOG
from learned_envs.twm.config import compact, faithful
from training.agents.compact_world import CompactTraining
from training.awm.model_recipe import ModelRecipe
from training.loop import RunError
from training.recipe import ExperienceRecipe, RefitRecipe, RoundsRecipe, TwmRecipe, load_recipe
from training.twm.dynamics import DynamicsTraining
from training.twm.joint import JointTraining
from training.twm.observation import ObservationTraining

RECIPES = {path.stem: path for path in (Path(training.recipe.__file__).parent / "recipes").glob("*.toml")}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_of_the_project_is_valid(name: str) -> None:
    content = tomllib.loads(RECIPES[name].read_text())
    id = content["id"]
    if "base" in content:  # goes on from what the catalogue's recipe made
        recipe = load_recipe(name, RefitRecipe)
        assert recipe.base == f"runs/{CATALOG[id].recipe.split()[-1]}-0/snapshot"
    else:
        recipe = load_recipe(name, TwmRecipe if CATALOG[id].family == "twm" else ModelRecipe)
        assert CATALOG[id].recipe.endswith(f" --recipe {name}")
    assert recipe.id == id


def test_recipe_may_be_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('id = "LearnedBoxing-v0"\npreset = "faithful"\nseed = 3\n[joint]\nbatch = 7\n')
    recipe = load_recipe(str(path))
    assert (recipe.id, recipe.game, recipe.preset, recipe.seed) == ("LearnedBoxing-v0", "Boxing", "faithful", 3)
    assert recipe.joint.batch == 7 and recipe.joint.learning_rate == 1e-4


def test_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(RunError, match=r"no recipe 'pnog'. Did you mean pong\? Known: .*pong"):
        load_recipe("pnog")
    with pytest.raises(RunError, match=r"no recipe 'nowhere\.toml'"):
        load_recipe("nowhere.toml")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "id"),
        ('id = "LearnedNothing-v0"', "LearnedNothing-v0"),
        ('id = "LearnedPong-v0"\ncolour = "red"', "colour"),
        ('id = "LearnedPong-v0"\n[dynamics]\nupdates = "many"', "dynamics.updates"),
        ('id = "LearnedPong-v0"\n[dynamics]\nupdate = 3', "dynamics.update"),
        ('id = "LearnedPong-v0"\npreset = "huge"', "preset"),
        ('id = "LearnedPong-v0"\nseed = 1.5', "seed"),
        ("id = ", "not TOML"),
    ],
)
def test_field_that_does_not_fit_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RunError) as raised:
        load_recipe(str(path))
    assert "mine.toml" in str(raised.value) and word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "candidates"),
        ("[candidates.awm-rnn.fitting]\nupdate = 3", "update"),
        ("[candidates.awm-rnn]\ncolour = 3", "colour"),
        ("[candidates.awm-rnn.sizes]\nwidth = 0", "width is 0"),
        ('[candidates.awm-rnn]\n[plans]\nkinds = ["wild"]', "plans.kinds"),
    ],
)
def test_field_of_a_model_recipe_that_does_not_fit_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'id = "LearnedHarvest-v0"\n{text}')
    with pytest.raises(RunError) as raised:
        load_recipe(str(path), ModelRecipe)
    assert "mine.toml" in str(raised.value) and word in str(raised.value)


def test_preset_and_temperature_decide_the_model() -> None:
    recipe = TwmRecipe("LearnedPong-v0", temperature=0.5)
    values = (-1.0, 0.0, 1.0)
    assert recipe.model_config(6, values) == replace(compact(6, values), temperature=0.5)
    assert replace(recipe, preset="faithful").model_config(6, values) == replace(faithful(6), temperature=0.5)
    own = TwmRecipe("LearnedPong-v0")
    assert own.model_config(6, values).temperature == 0, "the most likely latents"
    assert replace(own, preset="faithful").model_config(6, values).temperature == 1, "the paper's"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (lambda: RoundsRecipe(real_steps=10_001), "steps is 10001"),
        (lambda: RoundsRecipe(real_steps=32, games=5), "multiple of the 5 games"),
        (lambda: ExperienceRecipe(validation_steps=-5), "steps is -5"),
        (lambda: ExperienceRecipe(seed=77), "validation_seed is 77, as seed"),
        (lambda: TwmRecipe("LearnedPong-v0", temperature=-1.0), "temperature is -1.0, but must be at least 0"),
        (
            lambda: TwmRecipe("LearnedPong-v0", preset="faithful", rounds=RoundsRecipe(count=2)),
            "rounds.count is 2, but rounds are of the compact preset",
        ),
        (lambda: RoundsRecipe(temperature=-1.0), "temperature is -1.0, but must be at least 0"),
        (
            lambda: RoundsRecipe(last_refits=(DynamicsTraining(),)),
            "count is 0, but last_refits and decoder follow the last round",
        ),
        (lambda: RefitRecipe("LearnedPong-v0", "base", blend=1.5), r"blend is 1.5, but must lie in \[0, 1\]"),
        (lambda: DynamicsTraining(batch=0), "batch is 0, but must be at least 1"),
        (lambda: DynamicsTraining(self_fed=3.0), r"self_fed is 3.0, but must lie in \[0, 1\]"),
        (lambda: DynamicsTraining(sampling_temperature=0.0), "sampling_temperature is 0.0, but must be above 0"),
        (lambda: ObservationTraining(entropy_weight=-0.1), "entropy_weight is -0.1, but must be at least 0"),
        (lambda: ObservationTraining(learning_rate=0.0), "learning_rate is 0.0, but must be above 0"),
        (lambda: JointTraining(entropy_weight=-1.0), "entropy_weight is -1.0, but must be at least 0"),
        (
            lambda: CompactTraining(refine_every=70, refresh_every=50),
            "refine_every is 70, but must be a multiple of 50",
        ),
        (
            lambda: CompactTraining(online=DynamicsTraining(moved_share=0.5)),
            "online.moved_share is 0.5, but codes that change are not moved",
        ),
    ],
)
def test_setting_outside_its_range_is_told_at_once(settings: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        settings()


def test_command_that_the_catalogue_tells_has_a_recipe() -> None:
    for id, item in CATALOG.items():
        kind = TwmRecipe if item.family == "twm" else ModelRecipe
        assert load_recipe(item.recipe.split()[-1], kind).id == id


@pytest.mark.parametrize(
    ("name", "kind", "command"),
    [
        ("harvest", TwmRecipe, "awm"),
        ("pong", ModelRecipe, "twm"),
        ("pong", RefitRecipe, "twm"),
        ("pong-refit", TwmRecipe, "refit"),
    ],
)
def test_recipe_of_another_command_names_it(name: str, kind: type, command: str) -> None:
    with pytest.raises(RunError, match=f"recipe of another command: python -m training {command}"):
        load_recipe(name, kind)
