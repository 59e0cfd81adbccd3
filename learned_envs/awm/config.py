"""Every size of a world model of continuous states, and the two presets.

``faithful()`` has the sizes that the authors of Ma et al. (ICML 2024) released, without their defects: the clock is right,
the cache is large enough, and states are normalised. ``compact()`` is ours: smaller, and complete without a known reward.
"""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["AwmConfig", "BackboneName", "Family", "compact", "faithful"]

Family = Literal["markov", "hwm", "awm"]
BackboneName = Literal["mlp", "rnn", "lstm", "transformer"]


@dataclass(frozen=True)
class AwmConfig:
    """A world model of continuous states and actions.

    The three families differ in what a prediction is told (Ma et al., ICML 2024):

    - ``"markov"``: s_{t+1} = f(s_t, a_t);
    - ``"hwm"``, history-conditioned: s_{t+1} = h(s_1..s_t, a_1..a_t), fed its own predictions in imagination;
    - ``"awm"``, action-conditioned: s_{t+1} = g(s_1, a_1..a_t), never fed a predicted state.

    A history- or action-conditioned model sees windows of at most ``horizon`` steps. A rollout that goes on for longer
    **re-anchors**: after every ``horizon`` steps the state predicted last becomes the s_1 of the next window, and what went
    before is forgotten. There, and only there, gradients of an action-conditioned model pass through a predicted state.
    Train on windows from anywhere in the episodes if rollouts shall go past the horizon.

    Args:
        family: What a prediction is told.
        state_dim: Numbers in a state, the clock not counted; at least 1.
        action_dim: Numbers in an action; at least 1.
        horizon: Longest window in steps, H; at least 1. A Markov model has no window: to it this is only the length that it
            was trained for.
        backbone: ``"mlp"`` for a Markov model; ``"rnn"``, ``"lstm"`` or ``"transformer"`` for the others.
        clock: Whether an observation ends with the number of the step. The model reads it like a state, but never
            predicts it: it counts.
        width: Features of a token and of the backbone, D.
        layers: Blocks of a transformer.
        heads: Attention heads of a transformer; must divide ``width``.
        embedder_hidden: Widths of the hidden layers that turn states and actions into tokens; empty for linear maps.
        hidden: Widths of the hidden layers that turn features into states; of a Markov model, of the whole network.
        prediction: ``"absolute"`` predicts the next state; ``"delta"`` its difference from the newest state that the family
            reads, which is s_t, or s_1 if action-conditioned.
        reward: ``"learned"`` as a network of state and action, or ``"known"``: then a function comes from the caller.
        reward_hidden: Widths of the hidden layers of the learned reward. The paper's rewards are known: this part is ours.
        feedback_gradient: Factor on gradients where the model reads a state that it predicted itself, in [0, 1]. 1 is the
            exact derivative and 0 cuts it; predictions are the same. The released Markov rival trains policies with 0.9,
            a detached history-conditioned model has 0. Whatever stands after a context of more than one observation counts
            as predicted.

    Raises:
        ValueError: If a value lies outside its range, or two do not fit each other.
    """

    family: Family
    state_dim: int
    action_dim: int
    horizon: int
    backbone: BackboneName = "transformer"
    clock: bool = True
    width: int = 48
    layers: int = 2
    heads: int = 3
    embedder_hidden: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (64, 64)
    prediction: Literal["absolute", "delta"] = "absolute"
    reward: Literal["learned", "known"] = "learned"
    reward_hidden: tuple[int, ...] = (64, 64)
    feedback_gradient: float = 1.0

    def __post_init__(self) -> None:
        _one_of("family", self.family, get_args(Family))
        _one_of("backbone", self.backbone, get_args(BackboneName))
        _one_of("prediction", self.prediction, ("absolute", "delta"))
        _one_of("reward", self.reward, ("learned", "known"))
        for name in ("state_dim", "action_dim", "horizon", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("embedder_hidden", "hidden", "reward_hidden"):
            if any(width < 1 for width in getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}, but every layer must have at least 1 feature.")
        if (self.family == "markov") != (self.backbone == "mlp"):
            raise ValueError(
                f'backbone is {self.backbone!r} and family is {self.family!r}, but a Markov model is an "mlp" without a '
                'memory, and the others need one: use "rnn", "lstm" or "transformer".'
            )
        if self.backbone == "transformer" and self.width % self.heads:
            raise ValueError(f"width is {self.width}, but must be a multiple of heads, {self.heads}.")
        if not 0 <= self.feedback_gradient <= 1:
            raise ValueError(f"feedback_gradient is {self.feedback_gradient}, but must lie in [0, 1].")

    @property
    def observation_dim(self) -> int:
        """Numbers in an observation: the state and, if there is one, the clock."""
        return self.state_dim + self.clock


def faithful(
    family: Family,
    state_dim: int,
    action_dim: int,
    horizon: int,
    backbone: BackboneName | None = None,
    reward: Literal["learned", "known"] = "known",
) -> AwmConfig:
    """The sizes that the authors released.

    The transformer has 2 layers of width 48 with 3 heads and linear embedders; LSTM and RNN have 48 units and embedders of
    64-64; all read out through 64-64, with relu. The Markov model is a network of 64-64 with swish that predicts the change
    of the state. The authors' rewards are known.

    Args:
        family: What a prediction is told.
        state_dim: Numbers in a state, the clock not counted.
        action_dim: Numbers in an action.
        horizon: Steps of an episode, H.
        backbone: Left out, ``"mlp"`` for a Markov model and ``"transformer"`` for the others.
        reward: ``"known"`` or ``"learned"``.

    Raises:
        ValueError: If a value lies outside its range, or two do not fit each other.
    """
    backbone = backbone or _usual_backbone(family)
    return AwmConfig(
        family,
        state_dim,
        action_dim,
        horizon,
        backbone,
        embedder_hidden=(64, 64) if backbone in ("rnn", "lstm") else (),
        prediction="delta" if family == "markov" else "absolute",
        reward=reward,
    )


def compact(
    family: Family,
    state_dim: int,
    action_dim: int,
    horizon: int,
    backbone: BackboneName | None = None,
    reward: Literal["learned", "known"] = "learned",
) -> AwmConfig:
    """Our small model: as `faithful`, with width 32, two heads, one hidden layer but for Markov models, and a learned reward.

    Args:
        family: What a prediction is told.
        state_dim: Numbers in a state, the clock not counted.
        action_dim: Numbers in an action.
        horizon: Steps of a window, H.
        backbone: Left out, ``"mlp"`` for a Markov model and ``"transformer"`` for the others.
        reward: ``"learned"`` or ``"known"``.

    Raises:
        ValueError: If a value lies outside its range, or two do not fit each other.
    """
    backbone = backbone or _usual_backbone(family)
    return AwmConfig(
        family,
        state_dim,
        action_dim,
        horizon,
        backbone,
        width=32,
        heads=2,
        embedder_hidden=(64,) if backbone in ("rnn", "lstm") else (),
        hidden=(64, 64) if family == "markov" else (64,),
        prediction="delta" if family == "markov" else "absolute",
        reward=reward,
        reward_hidden=(64,),
    )


def _usual_backbone(family: Family) -> BackboneName:
    return "mlp" if family == "markov" else "transformer"


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(map(repr, known))}.")
