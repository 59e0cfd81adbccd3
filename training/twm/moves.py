"""Recorded pictures moved by some pixels, for the dynamics to learn the law of motion at every place within a cell."""

import torch
from torch import Tensor, nn
from tqdm import tqdm

from learned_envs.twm.observation_model import GridObservationModel
from training.precision import mixed_precision

__all__ = ["MOVES", "encode_moved", "move"]

# Rows down and columns to the right. Cells are 8x8 pixels: half a cell each way reaches every place within one.
MOVES = ((1, 2), (2, -3), (-3, 1), (-1, -2), (3, 4), (4, -1), (-2, 3), (-4, -4))


def move(pictures: Tensor, background: Tensor, down: int, right: int) -> Tensor:
    """Move what differs from the empty scene; what leaves the picture is lost.

    Args:
        pictures: Shape (N, height, width).
        background: The empty scene, which stays where it is, shape (height, width).
        down: Rows, negative for up.
        right: Columns, negative for left.

    Returns:
        Shape (N, height, width).
    """
    padding = (right, -right, down, -down)  # negative padding cuts off
    return nn.functional.pad(pictures - background, padding) + background


@torch.no_grad()
def encode_moved(model: GridObservationModel, frames: Tensor, batch: int = 512) -> Tensor:
    """Code every recorded frame, moved in every one of `MOVES`.

    Args:
        model: The observation model.
        frames: On the model's device, uint8, shape (frames, 64, 64).
        batch: Frames at a time.

    Returns:
        Most likely classes, uint8, shape (moves * frames, V): all frames moved in the first way, then in the second, and so on.
    """
    parts = []
    for down, right in tqdm(MOVES, desc="moved codes", unit="way"):
        for part in frames.split(batch):
            with mixed_precision(frames.device):
                moved = move(part.float() / 255, model.background, down, right)
                parts.append(model.encode(moved.unsqueeze(1)).argmax(-1).to(torch.uint8))
    return torch.cat(parts)
