"""From frames to discrete codes and back.

`DenseObservationModel` is the paper's (Robine et al., ICLR 2023, section 2.1): the whole stack of frames becomes one code.
`GridObservationModel` is ours: each frame becomes a grid of 8x8 local codes. What stands in one corner of the picture
hardly touches the code of another (only normalisation looks at the whole frame), so score, paddles and ball combine freely,
also in ways that were never recorded.

Letters: B batch, F frames of a code, V latent variables, K classes.
"""

import torch
from torch import Tensor, nn

from learned_envs.nn.initialization import kaiming_uniform
from learned_envs.twm.config import ObservationConfig

__all__ = ["DenseObservationModel", "GridObservationModel", "make_observation_model"]


class DenseObservationModel(nn.Module):
    """The paper's convolutional autoencoder with categorical latents.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ObservationConfig) -> None:
        super().__init__()
        self.config = config
        frames, channels, features = config.stack, config.channels, config.latent.features
        self.encoder = nn.Sequential(
            nn.Conv2d(frames, channels, 4, 2),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 4, 2),
            nn.SiLU(),
            nn.Conv2d(2 * channels, 4 * channels, 4, 2),
            nn.SiLU(),
            nn.Conv2d(4 * channels, 8 * channels, 4, 2),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(8 * channels * 4, 512),
            nn.SiLU(),
            nn.Linear(512, 512),
            nn.SiLU(),
            nn.Linear(512, features),
        )
        widest = 16 * channels
        self.decoder = nn.Sequential(
            nn.Linear(features, widest),
            nn.SiLU(),
            nn.Unflatten(1, (widest, 1, 1)),
            nn.ConvTranspose2d(widest, 4 * channels, 5, 2),
            nn.SiLU(),
            nn.ConvTranspose2d(4 * channels, 2 * channels, 5, 2),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * channels, channels, 6, 2),
            nn.SiLU(),
            nn.ConvTranspose2d(channels, frames, 6, 2),
        )
        self._initialize()

    def _initialize(self) -> None:
        """Kaiming-uniform with the relu gain for SiLU, gain 1 on linear outputs; transposed convolutions keep the default."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                kaiming_uniform(layer)
        output = self.encoder[-1]
        assert isinstance(output, nn.Linear)
        kaiming_uniform(output, gain=1.0)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames in [0, 1], shape (B, F, 64, 64), to logits, shape (B, V, K)."""
        latent = self.config.latent
        return self.encoder(frames).unflatten(-1, (latent.variables, latent.classes))

    def decode(self, latents: Tensor) -> Tensor:
        """One-hot latents or probabilities, shape (B, V, K), to frames, about in [0, 1], shape (B, F, 64, 64)."""
        return self.decoder(latents.flatten(1))


class GridObservationModel(nn.Module):
    """A convolutional autoencoder of single frames with a grid of 8x8 local codes.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: ObservationConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        per_cell = config.latent.features // 64
        self.encoder = nn.Sequential(
            *_shrink(1, channels),
            *_shrink(channels, 2 * channels),
            *_shrink(2 * channels, 4 * channels),
            nn.Conv2d(4 * channels, 4 * channels, 3, padding=1),
            nn.GroupNorm(8, 4 * channels),
            nn.SiLU(),
            nn.Conv2d(4 * channels, per_cell, 1),
        )
        self.embedding = nn.Conv2d(per_cell, 4 * channels, 1)
        self.cell_bias = nn.Parameter(torch.zeros(1, 4 * channels, 8, 8))
        # All convolutions run on the 8x8 grid: what a cell shows depends on its own code and those around it.
        self.decoder = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(4 * channels, 6 * channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(6 * channels, 6 * channels, 1),
            nn.SiLU(),
            nn.Conv2d(6 * channels, 64, 1),
            nn.PixelShuffle(8),
        )
        # The decoder draws on top of a picture of the empty scene; training starts it at the median frame.
        self.background = nn.Parameter(torch.zeros(64, 64))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames in [0, 1], shape (B, 1, 64, 64), to logits, shape (B, V, K)."""
        latent = self.config.latent
        cells = self.encoder(frames.contiguous(memory_format=torch.channels_last))
        return cells.permute(0, 2, 3, 1).reshape(-1, latent.variables, latent.classes)

    def decode(self, latents: Tensor) -> Tensor:
        """One-hot latents or probabilities, shape (B, V, K), to frames, about in [0, 1], shape (B, 1, 64, 64)."""
        cells = latents.reshape(len(latents), 8, 8, -1).permute(0, 3, 1, 2)
        return self.decoder(self.embedding(cells) + self.cell_bias) + self.background


def _shrink(inputs: int, outputs: int) -> list[nn.Module]:
    """Half the resolution."""
    return [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(outputs // 8, outputs), nn.SiLU()]


def make_observation_model(config: ObservationConfig) -> DenseObservationModel | GridObservationModel:
    """Build the observation model that a configuration names."""
    return DenseObservationModel(config) if config.architecture == "dense" else GridObservationModel(config)
