"""Which keys mean which action."""

import pytest

from learned_envs.envs.real.systems import make_system
from learned_envs.play.controls import key_bindings, sliders

_PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
_FREEWAY = ("NOOP", "UP", "DOWN")
_ALL = (
    *("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT"),
    *("UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE", "DOWNRIGHTFIRE", "DOWNLEFTFIRE"),
)


def _pressed(meanings: tuple[str, ...], *keys: str) -> str:
    """What the page does when keys are held: of the actions whose keys are all down, the one with the most."""
    best = max(
        (
            (len(held), binding.label)
            for binding in key_bindings(meanings)
            for held in binding.keys
            if {*held} <= {*keys}
        ),
        key=lambda found: found[0],
    )
    return best[1]


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ((), "NOOP"),
        (("ArrowUp",), "RIGHT"),
        (("ArrowDown",), "LEFT"),
        (("ArrowRight",), "RIGHT"),
        (("Space",), "FIRE"),
        (("ArrowDown", "Space"), "LEFTFIRE"),
        (("KeyQ",), "NOOP"),
    ],
)
def test_the_paddle_of_pong_moves_up_and_down(keys: tuple[str, ...], word: str) -> None:
    assert _pressed(_PONG, *keys) == word


def test_up_stays_up_where_the_game_knows_it() -> None:
    assert _pressed(_FREEWAY, "ArrowUp") == "UP"
    assert _pressed(_FREEWAY, "ArrowRight") == "NOOP"
    assert _pressed(_ALL, "ArrowUp", "ArrowRight", "Space") == "UPRIGHTFIRE"


def test_every_action_of_the_console_has_keys_of_its_own() -> None:
    keys = [frozenset(held) for binding in key_bindings(_ALL) for held in binding.keys]
    assert len(keys) == len(set(keys)) == 18


def test_actions_with_other_names_have_buttons_only() -> None:
    bindings = key_bindings(("NOOP", "JUMP", "UPWARD"))
    assert [binding.keys for binding in bindings] == [((),), (), ()]
    assert [binding.label for binding in bindings] == ["NOOP", "JUMP", "UPWARD"]


def test_sliders_name_physical_bounds() -> None:
    assert [(slider.low, slider.high) for slider in sliders(make_system("CancerTreatment"))] == [(0.0, 2.0)]
    assert len(sliders(make_system("InvasivePlant"))) == 5
