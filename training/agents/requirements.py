"""What a run needs of its machine, said before it starts."""

import shutil
from pathlib import Path

import torch

from learned_envs.twm.config import TwmConfig
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.actor_critic import ActorCriticTraining
from training.loop import RunError

__all__ = ["check_disk", "check_memory", "memory_needed"]

_GIB = 2**30
_FRAME = 64 * 64


def check_memory(
    agent: ActorCriticTraining, model: TwmConfig, steps: int, batch: int, length: int, device: torch.device
) -> None:
    """Refuse a run that will not fit.

    Args:
        agent: Sizes of the agent's updates.
        model: Sizes of the world model.
        steps: Interactions in all.
        batch: Sequences in an update of the world model.
        length: Trained steps of each.
        device: Where to train.

    Raises:
        RunError: If the device has less memory free than `memory_needed`.
    """
    needed, free = memory_needed(agent, model, steps, batch, length), _free(device)
    if needed > free:
        raise RunError(
            f"This run needs about {needed / _GIB:.1f} GiB of memory on {device}, where {free / _GIB:.1f} GiB are free. Close "
            "what else runs there, choose another --device, or use --preset compact."
        )


def memory_needed(agent: ActorCriticTraining, model: TwmConfig, steps: int, batch: int, length: int) -> int:
    """About how many bytes a run keeps on its device at once, from above.

    Weights come with gradients and two moments; activations of the world model's update and of the agent's are not alive at
    the same time, so the larger counts.
    """
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in TransformerWorldModel(model).parameters())
    weights = 4 * 4 * (parameters + 4_000_000)
    latent, transformer = model.observation.latent, model.transformer
    codes = 0 if model.observation.frames_per_code > 1 else steps * latent.features
    replay = steps * 9 // 8 * _FRAME + codes
    channels = model.observation.channels
    pictures = batch * (length + 2) * (4 * model.observation.stack * _FRAME * 4 + 4 * 4 * 1600 * channels)
    tokens = batch * (length + 1) * model.tokens_per_step
    per_token = transformer.layers * (12 * transformer.width + 3 * transformer.hidden + 6 * transformer.heads * 64)
    world = pictures + 4 * tokens * per_token + 6 * 4 * batch * (length + 2) * latent.features
    cache = 2 * 4 * agent.starts * transformer.layers * transformer.width * (3 * agent.horizon + 2)
    seen = agent.starts * (agent.horizon + 1)
    imagined = 2 * cache + seen * (4 * latent.features + 4 * 2 * 6 * sum(agent.hidden))
    return weights + replay + max(world, imagined) + _GIB // 2


def check_disk(model: TwmConfig, steps: int, folder: Path) -> None:
    """Refuse a run whose checkpoints and recordings will not fit.

    Args:
        model: Sizes of the world model.
        steps: Interactions in all.
        folder: Folder of the run, which exists.

    Raises:
        RunError: If the disk has too little room.
    """
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in TransformerWorldModel(model).parameters())
    codes = 0 if model.observation.frames_per_code > 1 else steps * model.observation.latent.features
    # Those of the pretraining and of the main loop, and a new one beside the old; frames are stored compressed.
    needed = 4 * 12 * (parameters + 3_000_000) + 2 * codes + steps * _FRAME // 4
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free + written:
        raise RunError(
            f"This run needs about {needed / _GIB:.1f} GiB of disk in {folder}, where {free / _GIB:.1f} GiB are free. Make room, "
            "or choose another --run folder."
        )


def _free(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # by an earlier run, for the next
        return torch.cuda.mem_get_info(device)[0] + kept
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 2**62  # unknown: nothing is refused
