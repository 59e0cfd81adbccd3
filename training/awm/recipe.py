"""Everything that decides how a policy comes out."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from learned_envs.awm.config import BackboneName, Family
from learned_envs.envs.real.systems import System, make_system
from learned_envs.envs.real.systems.system import Fixed
from training.awm.fit import Preset
from training.ranges import check_ranges

__all__ = ["BpoRecipe", "Method"]

Method = Literal["awm", "hwm", "hwm-detached", "markov", "markov-critic", "simulator", "sac", "open-loop"]

_FAMILIES: dict[Method, Family] = {
    "awm": "awm",
    "hwm": "hwm",
    "hwm-detached": "hwm",
    "markov": "markov",
    "markov-critic": "markov",
}
_FEEDBACK_GRADIENTS: dict[Method, float] = {"hwm-detached": 0.0, "markov": 0.9, "markov-critic": 0.9}


@dataclass(frozen=True)
class BpoRecipe:
    """How a policy is trained; the defaults are those of the released code (sections 2.2 to 2.5).

    Args:
        system: Name of the real system, such as CancerTreatment.
        family: What the policy's gradient goes through: ``"awm"``, ``"hwm"`` or ``"markov"``, a learned model over the
            whole horizon; ``"hwm-detached"``, one whose predictions are fed back without a gradient; ``"markov-critic"``, a
            Markov model over a few steps and then a critic; ``"simulator"``, the true equations. Or another way to act:
            ``"sac"``, Soft Actor-Critic of Stable-Baselines3, which has rates, discount, entropy and warm-up (1,000 steps) of
            its own; ``"open-loop"``, the plan that is optimal in the true equations.
        backbone: Sequence model of ``"awm"`` and ``"hwm"``; left out, the transformer.
        horizon: Steps of an episode, H.
        fixed: What stays when the horizon changes, the physical ``"duration"`` or the step ``"dt"``.
        noise: Deviation of the noise on the state; for the Myriad systems.
        distractors: Meaningless numbers in the state; for the Myriad systems.
        seed: Seed of everything.
        preset: Sizes of the model.
        reward: Whether the reward is ``"known"``, as in the paper, or ``"learned"``.
        normalize: Whether states are normalised for the policy. Their scale is taken from the first episode, which then is
            played by uniform actions. The released code has none.
        feedback_gradient: Factor on gradients where the model reads its own prediction; left out, 0.9 for Markov models, 0
            for ``"hwm-detached"``, else 1.
        env_steps: Real steps in all.
        warmup: Real steps before learning begins; at least one episode.
        model_every: Real steps between two updates of the model.
        model_batch: Episodes in such an update.
        model_learning_rate: Learning rate of Adam for the model.
        policy_every: Real steps between two updates of the policy.
        policy_batch: Starts in such an update.
        policy_learning_rate: Learning rate of Adam for the policy.
        critic_learning_rate: Learning rate of Adam for the critic.
        critic_share: Share of the way that the trailing critic moves in an update.
        unroll: Steps before the critic takes over.
        discount: Discount of rewards, gamma.
        entropy: Weight of the entropy, which is a mean over steps for every family; the released code sums it for Markov
            models.
        clip: Largest norm of a gradient.
        capacity: Transitions that are remembered.
        evaluate_every: Real steps between two evaluations.
        evaluation_episodes: Episodes of an evaluation, in which the policy acts deterministically.

    Raises:
        ValueError: If a value lies outside its range, or two do not fit each other.
    """

    system: str
    family: Method = "awm"
    backbone: BackboneName | None = None
    horizon: int = 100
    fixed: Fixed = "duration"
    noise: float = 0.0
    distractors: int = 0
    seed: int = 0
    preset: Preset = "faithful"
    reward: Literal["known", "learned"] = "known"
    normalize: bool = True
    feedback_gradient: float | None = None
    env_steps: int = 5000
    warmup: int = 1500
    model_every: int = 2
    model_batch: int = 64
    model_learning_rate: float = 1e-3
    policy_every: int = 16
    policy_batch: int = 16
    policy_learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3
    critic_share: float = 0.005
    unroll: int = 2
    discount: float = 1.0
    entropy: float = 0.1
    clip: float = 100.0
    capacity: int = 1_000_000
    evaluate_every: int = 32
    evaluation_episodes: int = 1

    def __post_init__(self) -> None:
        if self.family not in get_args(Method):
            raise ValueError(f"family is {self.family!r}, but must be one of {', '.join(get_args(Method))}.")
        if self.backbone is not None and self.model_family not in ("awm", "hwm"):
            raise ValueError(f"backbone is {self.backbone!r}, but {self.family!r} has no sequence model.")
        positive = ("env_steps", "model_every", "model_batch", "policy_every", "policy_batch", "unroll", "capacity")
        rates = ("model_learning_rate", "policy_learning_rate", "critic_learning_rate", "clip")
        check_ranges(
            self, positive=(*positive, *rates, "evaluate_every", "evaluation_episodes"), not_negative=("entropy",)
        )
        for name in ("discount", "critic_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must lie in (0, 1].")
        if not self.horizon <= self.warmup < self.env_steps:
            raise ValueError(
                f"warmup is {self.warmup}, but must be at least one episode, {self.horizon} steps, and below env_steps, "
                f"{self.env_steps}."
            )

    @property
    def model_family(self) -> Family | None:
        """Family of the learned model; None if there is none."""
        return _FAMILIES.get(self.family)

    @property
    def share_fed_back(self) -> float:
        """The factor on gradients where the model reads its own prediction."""
        return _FEEDBACK_GRADIENTS.get(self.family, 1.0) if self.feedback_gradient is None else self.feedback_gradient

    def make_system(self) -> System:
        """The real system.

        Raises:
            gymnasium.error.NameNotFound: If there is no such system.
            ValueError: If it has no noise or distractors, but some are wanted, or a parameter lies outside its range.
        """
        extras: dict[str, Any] = {name: getattr(self, name) for name in ("noise", "distractors") if getattr(self, name)}
        try:
            return make_system(self.system, horizon=self.horizon, fixed=self.fixed, **extras)
        except TypeError as error:
            raise ValueError(f"{error} Leave {' and '.join(extras)} out.") from error
