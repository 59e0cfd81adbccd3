"""Real openings from which imagined episodes start.

A world model can only continue something. This bank of recorded contexts lets an environment reset itself on a computer
that has neither the data set nor the emulator.

Letters: N contexts, T steps of a context.
"""

import lzma
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["Contexts", "StartBank", "StartKind"]

StartKind = Literal["initial", "anywhere"]
Contexts = tuple[Tensor, Tensor, Tensor]
_MOST_BYTES = 2**31  # of inflated frames
_MOST_MEMORY = 2**27  # that inflating may take beside them


@dataclass(frozen=True)
class StartBank:
    """Recorded contexts of both kinds, in the form in which they are stored.

    Args:
        tensors: For each kind, ``kind.observations``, ``kind.actions`` and ``kind.rewards``, as `contexts` returns them;
            stacks of frames are stored as ``kind.frames``, the single frames that make them up, in the format xz.
        stack: Frames in a stack; 0 if observations are not stacks.
        frame_shape: Height and width of a frame.
    """

    tensors: dict[str, Tensor]
    stack: int = 0
    frame_shape: tuple[int, int] = (64, 64)

    @classmethod
    def from_frames(cls, contexts: dict[StartKind, Contexts], stack: int) -> "StartBank":
        """Store contexts of stacked frames.

        Args:
            contexts: For each kind: single frames, uint8, shape (N, stack - 1 + T, height, width); actions, int64, and
                rewards, float32, shape (N, T - 1) each.
            stack: Frames in a stack.
        """
        tensors: dict[str, Tensor] = {}
        for kind, (frames, actions, rewards) in contexts.items():
            packed = lzma.compress(frames.numpy().tobytes())
            tensors[f"{kind}.frames"] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
            tensors[f"{kind}.actions"] = actions
            tensors[f"{kind}.rewards"] = rewards
        height, width = next(iter(contexts.values()))[0].shape[-2:]
        return cls(tensors, stack, (height, width))

    @classmethod
    def from_contexts(cls, contexts: dict[StartKind, Contexts]) -> "StartBank":
        """Store contexts as they are.

        Args:
            contexts: For each kind: observations, shape (N, T, *observation_shape); actions, shape (N, T - 1, ...); rewards,
                float32, shape (N, T - 1).
        """
        names = "observations", "actions", "rewards"
        return cls(
            {
                f"{kind}.{name}": tensor
                for kind, given in contexts.items()
                for name, tensor in zip(names, given, strict=True)
            }
        )

    def contexts(self, kind: StartKind) -> Contexts:
        """All contexts of one kind.

        Args:
            kind: ``"initial"`` for real episode beginnings, ``"anywhere"`` for the middle of episodes.

        Returns:
            Observations, shape (N, T, *observation_shape); actions, shape (N, T - 1, ...); rewards, shape (N, T - 1).

        Raises:
            ValueError: If the kind is unknown.
        """
        if kind not in get_args(StartKind):
            raise ValueError(f'starts is {kind!r}, expected "initial" or "anywhere".')
        actions, rewards = self.tensors[f"{kind}.actions"], self.tensors[f"{kind}.rewards"]
        if not self.stack:
            return self.tensors[f"{kind}.observations"], actions, rewards
        return self._stacks(kind, *rewards.shape), actions, rewards

    def _stacks(self, kind: StartKind, count: int, steps_between: int) -> Tensor:
        shape = (count, self.stack + steps_between, *self.frame_shape)
        size = torch.Size(shape).numel()
        if not 0 < size <= _MOST_BYTES:
            raise ValueError(f"{kind}.rewards announces frames of shape {shape}, expected 1 to {_MOST_BYTES} bytes")
        # Bounded: a damaged or malicious file must not inflate beyond what its other tensors announce.
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
        inflated = stream.decompress(self.tensors[f"{kind}.frames"].numpy().tobytes(), size + 1)
        if len(inflated) != size or not stream.eof:
            raise ValueError(f"{kind}.frames does not inflate to the {size} bytes of frames of shape {shape}.")
        frames = torch.frombuffer(bytearray(inflated), dtype=torch.uint8).view(shape)
        return frames.unfold(1, self.stack, 1).permute(0, 1, 4, 2, 3)
