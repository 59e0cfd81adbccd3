"""What the page says to the server, checked, and what the server tells the page.

Everything is JSON. Pictures travel as PNG in base64: the newest frame of a game is about a kilobyte.
"""

import base64
import math
from io import BytesIO
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from learned_envs.envs.real.systems import System
from learned_envs.play.controls import key_bindings, sliders
from learned_envs.play.session import Moment, Session, View

__all__ = [
    "MAX_SPEED",
    "Control",
    "Fork",
    "Look",
    "Message",
    "Pause",
    "Play",
    "Record",
    "Reset",
    "Speed",
    "Step",
    "Switch",
    "TakeOver",
    "describe_moment",
    "describe_session",
    "parse_message",
]

MAX_SPEED = 60.0
"""Most steps a second."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Control(_Message):
    """What the person does from now on: an index, or numbers in [-1, 1]."""

    type: Literal["control"]
    action: int | list[float]


class Play(_Message):
    """Let time run."""

    type: Literal["play"]


class Pause(_Message):
    """Let time stand still."""

    type: Literal["pause"]


class Step(_Message):
    """Take a single step."""

    type: Literal["step"]


class Speed(_Message):
    """Steps a second."""

    type: Literal["speed"]
    value: float = Field(ge=0.5, le=MAX_SPEED)


class Reset(_Message):
    """Begin anew; without a seed with the next one."""

    type: Literal["reset"]
    seed: int | None = None


class Look(_Message):
    """Show an earlier step without going there."""

    type: Literal["look"]
    step: int


class Fork(_Message):
    """Go back to an earlier step."""

    type: Literal["fork"]
    step: int


class Switch(_Message):
    """Go on with an earlier attempt."""

    type: Literal["switch"]
    branch: int


class TakeOver(_Message):
    """Put the dream into the state of the real game."""

    type: Literal["take_over"]


class Record(_Message):
    """Begin a film, or end it and write it."""

    type: Literal["record"]
    on: bool
    format: Literal["mp4", "gif"] = "mp4"


Message = Control | Play | Pause | Step | Speed | Reset | Look | Fork | Switch | TakeOver | Record

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse_message(text: str) -> Message:
    """Read what the page says.

    Raises:
        ValueError: If it is nothing that the page can say; the message names the field.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(["message", *map(str, first["loc"]), first["msg"]])) from error


def describe_session(session: Session) -> dict[str, Any]:
    """What does not change while it is played: names, controls, and what there is to be seen."""
    system, environment = session.system, session.config.environment
    return {
        "id": session.config.id,
        "real": f"{environment.name} ({environment.kind})",
        "missing_twin": session.missing_twin,
        "horizon": environment.max_episode_steps,
        "max_speed": MAX_SPEED,
        **(_describe_game(session) if system is None else _describe_problem(system)),
    }


def describe_moment(moment: Moment, system: System | None, pictures: bool = True) -> dict[str, Any]:
    """One step of both games.

    Args:
        moment: The step.
        system: The control problem; None for a game.
        pictures: Whether to send pictures along.
    """
    views = {"learned": moment.learned, "real": moment.real}
    action = moment.action
    return {
        "step": moment.step,
        "action": action.tolist() if isinstance(action, np.ndarray) else action,
        "taken_over": moment.taken_over,
        **{name: view and _describe_view(view, system, pictures) for name, view in views.items()},
    }


def _describe_game(session: Session) -> dict[str, Any]:
    bindings = key_bindings(session.config.environment.action_meanings)
    return {"kind": "game", "bindings": [vars(binding) for binding in bindings]}


def _describe_problem(system: System) -> dict[str, Any]:
    names = [f"x{place}" for place in range(1, system.state_dim + 1)]
    return {"kind": "problem", "sliders": [vars(slider) for slider in sliders(system)], "values": names}


def _describe_view(view: View, system: System | None, pictures: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"reward": _finite(view.reward), "score": _finite(view.score), "end": view.end}
    if system is not None:
        told["values"] = [_finite(float(number)) for number in view.observation[: system.state_dim]]
    elif pictures:
        told["picture"] = _encode(view.observation[-1])
    return told


def _encode(frame: NDArray[np.uint8]) -> str:
    content = BytesIO()
    Image.fromarray(frame).save(content, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _finite(number: float) -> float | None:
    """JSON knows no infinity, and a model that went astray must not silence the page."""
    return number if math.isfinite(number) else None
