"""From frames to discrete codes and back.

`DenseObservationModel` is the paper's (Robine et al., ICLR 2023, section 2.1): the whole stack of frames becomes one code.
`GridObservationModel` is ours: each frame becomes a grid of 8x8 local codes, each read from its own pixels and a margin of
four. What stands in one corner of the picture cannot touch the code of another, so score, paddles and ball combine freely,
also in ways that were never recorded; and what moves changes few codes, which is few for the dynamics to predict.

Letters: B batch, F frames of a code, V latent variables, K classes.
"""

import torch
from torch import Tensor, nn

from learned_envs.nn.initialization import kaiming_uniform
from learned_envs.twm.config import ObservationConfig

__all__ = ["DenseObservationModel", "GridObservationModel", "make_observation_model"]

_CONTRAST = 4.0  # differences from the empty scene are small numbers, and a ball is a few of them


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
        wide = 16 * channels
        self.patch = nn.Conv2d(1, wide, 16, stride=8, padding=4)
        self.place = nn.Parameter(torch.zeros(1, wide, 8, 8))
        self.encoder = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(wide, wide, 1),
            nn.SiLU(),
            nn.Conv2d(wide, per_cell, 1),
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
        # A picture of the empty scene: the encoder is shown what differs from it, and the decoder draws on top of it.
        # Training starts it at the median frame.
        self.background = nn.Parameter(torch.zeros(64, 64))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames in [0, 1], shape (B, 1, 64, 64), to logits, shape (B, V, K)."""
        latent = self.config.latent
        differences = _CONTRAST * (frames - self.background)
        cells = self.encoder(self.patch(differences.contiguous(memory_format=torch.channels_last)) + self.place)
        return cells.permute(0, 2, 3, 1).reshape(-1, latent.variables, latent.classes)

    def decode(self, latents: Tensor) -> Tensor:
        """One-hot latents or probabilities, shape (B, V, K), to frames, about in [0, 1], shape (B, 1, 64, 64)."""
        cells = latents.reshape(len(latents), 8, 8, -1).permute(0, 3, 1, 2)  # channels_last, as they lie in memory
        bias = self.cell_bias.contiguous(memory_format=torch.channels_last)  # what is added to them fast lies like them
        return self.decoder(self.embedding(cells) + bias) + self.background

    def drawing_parameters(self) -> list[nn.Parameter]:
        """What `decode` alone uses; `encode` has the background, too."""
        return [*self.embedding.parameters(), self.cell_bias, *self.decoder.parameters()]


def make_observation_model(config: ObservationConfig) -> DenseObservationModel | GridObservationModel:
    """Build the observation model that a configuration names."""
    return DenseObservationModel(config) if config.architecture == "dense" else GridObservationModel(config)
