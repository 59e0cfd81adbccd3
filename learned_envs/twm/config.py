"""Every size of a transformer world model, and the two presets.

``faithful()`` is the model of Robine et al. (ICLR 2023) as its authors released it. ``compact()`` is ours: small enough
to be bundled, and to be trained on CPU cores; ``docs/compact.md`` tells how it differs, and why.
"""

from dataclasses import dataclass, field
from typing import Literal

from learned_envs.twm.transformer import TransformerConfig

__all__ = ["LatentConfig", "ObservationConfig", "TwmConfig", "compact", "faithful"]


@dataclass(frozen=True)
class LatentConfig:
    """The discrete code of an observation: independent categorical variables.

    Args:
        variables: Number of variables, V.
        classes: Classes of each, K; at least 2.
        uniform_share: Weight of the uniform distribution mixed into every probability, in [0, 1).

    Raises:
        ValueError: If a value lies outside its range.
    """

    variables: int = 32
    classes: int = 32
    uniform_share: float = 0.0

    def __post_init__(self) -> None:
        if self.variables < 1 or self.classes < 2:
            raise ValueError(
                f"{self.variables} variables of {self.classes} classes carry nothing: use at least 1 variable and 2 classes."
            )
        if not 0 <= self.uniform_share < 1:
            raise ValueError(f"uniform_share is {self.uniform_share}, but must lie in [0, 1).")

    @property
    def features(self) -> int:
        """Length of the flattened one-hot vectors, V * K."""
        return self.variables * self.classes


@dataclass(frozen=True)
class ObservationConfig:
    """The observation model.

    Args:
        stack: Newest frames in an observation.
        architecture: ``"dense"`` encodes the whole stack into one code through fully connected layers, as in the paper;
            ``"grid"`` encodes each frame by itself into a grid of 8x8 local codes.
        channels: Channels after the first convolution of a dense model; a sixteenth of them of a grid.
        latent: The code.

    Raises:
        ValueError: If the architecture is unknown, or a grid cannot hold the code.
    """

    stack: int = 4
    architecture: Literal["dense", "grid"] = "dense"
    channels: int = 48
    latent: LatentConfig = field(default_factory=LatentConfig)

    def __post_init__(self) -> None:
        if self.architecture not in ("dense", "grid"):
            raise ValueError(f'architecture is {self.architecture!r}, but must be "dense" or "grid".')
        if self.stack < 1 or self.channels < 1:
            raise ValueError(f"stack is {self.stack} and channels is {self.channels}, but both must be at least 1.")
        if self.architecture == "grid" and self.latent.variables % 64:
            raise ValueError(
                f"A grid has 64 cells, but there are {self.latent.variables} variables: use a multiple of 64."
            )

    @property
    def frames_per_code(self) -> int:
        """How many frames one code describes."""
        return self.stack if self.architecture == "dense" else 1


@dataclass(frozen=True)
class TwmConfig:
    """A transformer world model for pixels.

    Args:
        num_actions: Size of the discrete action set.
        observation: The observation model.
        transformer: Size and form of the transformer.
        tokens: ``"separate"`` gives latent, action and reward a token each, as in the paper; ``"fused"`` adds their
            embeddings into one token a step.
        context: Steps that the transformer looks back, the current one included.
        local_steps: Newest steps whose grids of codes a convolution looks at, which then predicts the next grid with the help
            of the transformer; 0 leaves it to the transformer alone.
        latent_hidden: Widths of the hidden layers of the latent head.
        reward_hidden: Widths of the hidden layers of the reward head.
        discount_hidden: Widths of the hidden layers of the discount head.
        reward_values: The rewards that can be predicted, as one categorical; empty for a Normal with unit variance whose
            mean is predicted, as in the paper.
        discount: Target of the discount head while the episode goes on, in (0, 1].
        reward_tokens: Whether the transformer is told rewards; without, their tokens are always those of 0.
        temperature: Temperature at which the next latent is sampled; 0 takes the most likely class, and the most likely reward.

    Raises:
        ValueError: If a value lies outside its range.
    """

    num_actions: int
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    tokens: Literal["separate", "fused"] = "separate"
    context: int = 17
    local_steps: int = 0
    latent_hidden: tuple[int, ...] = (512, 512, 512, 512)
    reward_hidden: tuple[int, ...] = (256, 256, 256, 256)
    discount_hidden: tuple[int, ...] = (256, 256, 256, 256)
    reward_values: tuple[float, ...] = ()
    discount: float = 0.99
    reward_tokens: bool = True
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.num_actions < 1:
            raise ValueError(f"num_actions is {self.num_actions}, but a game has at least 1 action.")
        if self.tokens not in ("separate", "fused"):
            raise ValueError(f'tokens is {self.tokens!r}, but must be "separate" or "fused".')
        if self.tokens == "separate" and self.observation.frames_per_code < self.observation.stack:
            raise ValueError(
                'tokens is "separate", but codes of single frames need "fused" ones: the actions between the frames of the '
                "first stack are unknown, and only fused tokens can tell so."
            )
        if self.context < 2:
            raise ValueError(
                f"context is {self.context}, but the transformer must look back on at least one step: use 2 or more."
            )
        if not 0 <= self.local_steps <= self.context or (self.local_steps and self.observation.architecture != "grid"):
            raise ValueError(
                f"local_steps is {self.local_steps}, but must lie in [0, context = {self.context}], and be 0 where the "
                f"observation model is not a grid (it is {self.observation.architecture!r})."
            )
        if len(self.reward_values) == 1 or list(self.reward_values) != sorted(set(self.reward_values)):
            raise ValueError(
                f"reward_values is {self.reward_values}, but must be empty or two or more ascending numbers."
            )
        if not 0 < self.discount <= 1:
            raise ValueError(f"discount is {self.discount}, but must lie in (0, 1].")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}, but must not be negative.")

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step: latent, action and reward, or their sum."""
        return 3 if self.tokens == "separate" else 1


def faithful(num_actions: int) -> TwmConfig:
    """The paper's model: 19.0 million parameters with 18 actions."""
    return TwmConfig(num_actions)


def compact(num_actions: int, reward_values: tuple[float, ...] = (-1.0, 0.0, 1.0)) -> TwmConfig:
    """Our small model: local codes of single frames, one token a step, normalised and with sharp rewards."""
    return TwmConfig(
        num_actions,
        ObservationConfig(architecture="grid", channels=16, latent=LatentConfig(128, 16, 0.0005)),
        TransformerConfig(
            layers=4, width=256, heads=4, hidden=768, normalize="before", score_width="head", dropout=0.1
        ),
        tokens="fused",
        context=24,
        local_steps=3,
        latent_hidden=(512,),
        reward_hidden=(128,),
        discount_hidden=(128,),
        reward_values=reward_values,
        discount=1.0,
        temperature=0.0,
    )
