"""The card of a snapshot: the page that people see on the Hub, made from what the snapshot holds."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from learned_envs.catalog import CATALOG, repository_of
from learned_envs.environment import AtariConfig
from learned_envs.errors import SnapshotError
from learned_envs.files import replacing
from learned_envs.manifest import CARD, PREVIEW, write_manifest
from learned_envs.snapshot import Snapshot, SnapshotConfig, read_snapshot

__all__ = ["card_settings", "describe_figure", "figures", "render_card", "write_card"]

_TASK = "reinforcement-learning"
_SETTINGS = re.compile(r"<!-- Made by: python -m hub card \S+ --repo (\S+) --license (\S+) -->")
_MOST_RESULTS = 40  # in the metadata; the page shows all


def write_card(folder: Path, repository: str | None = None, license: str | None = None) -> Path:
    """Write the card of a snapshot, and note it in the manifest.

    Args:
        folder: The snapshot.
        repository: Where it will be published; None keeps what the card says, or takes the catalogue's own place.
        license: Licence of the model, as the Hub names it; None keeps what the card says, or takes MIT.

    Returns:
        The card.

    Raises:
        SnapshotError: If the folder holds no valid snapshot.
    """
    snapshot = read_snapshot(folder)
    before = card_settings(folder)
    repository = repository or (before[0] if before else repository_of(snapshot.config.id))
    license = license or (before[1] if before else "mit")
    text = render_card(snapshot, repository, license, preview=(folder / PREVIEW).is_file())
    with replacing(folder / CARD) as partial:
        partial.write_text(text, encoding="utf-8")
    write_manifest(folder)
    return folder / CARD


def card_settings(folder: Path) -> tuple[str, str] | None:
    """Repository and licence for which the card in a folder was made; None if there is no such card."""
    try:
        found = _SETTINGS.search((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (found[1], found[2]) if found else None


def render_card(snapshot: Snapshot, repository: str, license: str, preview: bool) -> str:
    """The text of a card: metadata for the Hub, then a page for people.

    Args:
        snapshot: What it is about.
        repository: Where it will be published.
        license: Licence of the model, as the Hub names it.
        preview: Whether there is a film to show.
    """
    config = snapshot.config
    parts = [
        f"---\n{_metadata(snapshot, license).to_yaml()}\n---",
        f"# {config.id}",
        _introduction(config),
        *([f"![An imagined game]({PREVIEW})\n\n*Imagined by the model, action by action.*"] if preview else []),
        _usage(config, repository),
        _measured(snapshot),
        _LIMITS,
        _origin(config),
        f"<!-- Made by: python -m hub card FOLDER --repo {repository} --license {license} -->",
    ]
    return "\n\n".join(parts) + "\n"


def figures(fidelity: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every measured number, with the names on the way to it joined by dots."""
    for name, value in fidelity.items():
        if isinstance(value, Mapping):
            yield from figures(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


def describe_figure(name: str) -> str:
    """The name of a figure in words: ``open_loop.ball.15`` is "open loop: ball, 15"."""
    first, *rest = name.replace("_", " ").split(".")
    return f"{first}: {', '.join(rest)}" if rest else first


def _metadata(snapshot: Snapshot, license: str) -> ModelCardData:
    config = snapshot.config
    results = [
        EvalResult(
            task_type=_TASK,
            task_name="world model fidelity",
            dataset_type=f"{config.environment.kind}/{config.environment.name}",
            dataset_name=f"real {config.environment.name}",
            metric_type=name,
            metric_name=describe_figure(name),
            metric_value=value,
        )
        for name, value in list(figures(snapshot.fidelity))[:_MOST_RESULTS]
    ]
    tags = [_TASK, "world-model", "gymnasium", config.family, config.environment.kind, config.environment.name]
    known: dict[str, Any] = {"model_name": config.id, "eval_results": results} if results else {}
    return ModelCardData(library_name=config.library_name, license=license, tags=tags, pipeline_tag=_TASK, **known)


def _introduction(config: SnapshotConfig) -> str:
    real = config.environment
    what = "the game" if isinstance(real, AtariConfig) else "the control problem"
    return (
        f"A world model of {what} {real.name} that behaves like a [Gymnasium](https://gymnasium.farama.org) environment: an "
        "agent acts, and the model imagines what happens. It needs no emulator and no simulator, runs batches on a GPU, and "
        "passes gradients through `step`."
    )


def _usage(config: SnapshotConfig, repository: str) -> str:
    make = f'gym.make("learned_envs:Learned-v0", model="{repository}")'
    bundled = ""
    if config.id in CATALOG and repository == repository_of(config.id):
        bundled = (
            f'\nenv = gym.make("{config.id}")                     # the same by its id, after `import learned_envs`'
        )
    agent = ""
    if config.policy is not None:
        agent = (
            f'\n\nagent = learned_envs.load_policy("{repository}")  # came with it; for the real thing and this one'
            "\naction, _ = agent.predict(observation)"
        )
    return f"""## Use it

```
pip install learned-envs
```

```python
import gymnasium as gym
import learned_envs

env = {make}{bundled}
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step(env.action_space.sample())

envs = gym.make_vec("learned_envs:Learned-v0", num_envs=64, model="{repository}", output="torch")
model = learned_envs.load("{repository}")        # the nn.Module, for functions and gradients{agent}
```

Pin what you publish results with: `revision="COMMIT"`, or a tag. The files are JSON and safetensors; loading them runs none of
their author's code."""


def _measured(snapshot: Snapshot) -> str:
    rows = [f"| {describe_figure(name)} | {value:,.4g} |" for name, value in figures(snapshot.fidelity)]
    if not rows:
        return "## How faithful it is\n\nIts fidelity was not measured."
    table = "\n".join(("| figure | value |", "| --- | --- |", *rows))
    return f"## How faithful it is\n\nMeasured against {snapshot.config.environment.name} itself.\n\n{table}"


_LIMITS = """## Limits

It knows what it was shown. Where an agent goes that its training data did not, it makes things up, plausibly; the longer it
imagines without a look at the real thing, the more. A policy can learn to exploit its errors: judge policies in the real
environment (`learned_envs.make_real`)."""


def _origin(config: SnapshotConfig) -> str:
    real = config.environment
    packages = ", ".join(f"{name} {version}" for name, version in real.packages.items()) or "none recorded"
    trained = f" Trained by {_commands(config)}." if config.id in CATALOG else ""
    return f"""## Where it comes from

Family `{config.family}`, learned from {real.name} ({real.kind}; packages: {packages}); rewards: {real.reward}; episodes of
at most {real.max_episode_steps:,} steps.{trained}

```json
{json.dumps(config.provenance, indent=2)}
```"""


def _commands(config: SnapshotConfig) -> str:
    """What makes such a model."""
    base = config.provenance.get("base")  # of a model that was fitted further
    if isinstance(base, dict):
        return f"{_commands(replace(config, provenance=base))}, and further by `{config.provenance.get('command')}`"
    run = config.provenance.get("atari100k")
    if not isinstance(run, dict):
        return f"`{CATALOG[config.id].recipe}`"
    return f"`python -m training atari100k --game {config.environment.name} --preset {run.get('preset')}`"


def read_card(folder: Path) -> ModelCardData:
    """The metadata of the card in a folder.

    Raises:
        SnapshotError: If there is no card, or its metadata cannot be read.
    """
    from huggingface_hub import ModelCard

    path = folder / CARD
    try:
        data = ModelCard(path.read_text(encoding="utf-8")).data
    except Exception as error:  # the parser's errors have no common ancestor
        raise SnapshotError(f"{path} is no card ({error}). Make one: python -m hub card {folder}") from error
    if not isinstance(data, ModelCardData):
        raise SnapshotError(f"{path} is no model's card. Make one: python -m hub card {folder}")
    return data
