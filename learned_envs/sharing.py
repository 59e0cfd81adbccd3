"""``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, with the meaning that people know from other libraries."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

__all__ = ["Shareable"]

_CARD = """---
library_name: learned_envs
tags: [reinforcement-learning, world-model]
pipeline_tag: reinforcement-learning
---

# {name}

A world model, made with `learned_envs`.

```python
from {module} import {kind}

model = {kind}.from_pretrained("{repository}")
```
"""


class Shareable:
    """A world model that can be saved, loaded and published by itself.

    A model that `learned_envs.load` or `from_pretrained` took from a snapshot is saved as a snapshot again, with its
    environment and its starts, so that Gymnasium can make an environment of it. Its measured fidelity is left out, and the
    agent that came with it: they were of other weights. Any other model is saved by itself: configuration and weights.
    """

    def save_pretrained(self, save_directory: str | Path) -> Path:
        """Write the model to a folder, complete or not at all; a model that is there is replaced, all but its README.md.

        Weights are stored in the precision of their family: float16 for games, float32 for control problems.

        Args:
            save_directory: Where it goes.

        Returns:
            The folder.

        Raises:
            FileExistsError: If something else lies in the folder.
            ValueError: If the model is of no family that can be saved, or a weight is not finite in its precision.
        """
        from learned_envs.snapshot import write_model, write_snapshot

        folder, model = Path(save_directory), self._as_model()
        if hasattr(self, "snapshot") and hasattr(self, "starts"):
            write_snapshot(folder, replace(model.snapshot, policy=None), model, model.starts, {}, replace=True)
        else:
            write_model(folder, model)
        return folder

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        device: Any = "cpu",
        local_files_only: bool = False,
    ) -> Self:
        """Load a model from wherever `learned_envs.load` does, or one that was saved by itself.

        Args:
            pretrained_model_name_or_path: Id, folder, or repository on the Hub.
            revision: Branch, tag or commit on the Hub.
            device: Where to put the model.
            local_files_only: Whether to do without the network.

        Returns:
            The model, in evaluation mode.

        Raises:
            MissingModelError: If it is not to be had.
            SnapshotError: If its files are damaged.
            ValueError: If the device is not available, or a revision of a folder is asked for.
            TypeError: If it is of another class.
        """
        from learned_envs.device import parse_device
        from learned_envs.pretrained import find_snapshot, load
        from learned_envs.snapshot import holds_environment, read_model

        device = parse_device(device)
        folder = find_snapshot(pretrained_model_name_or_path, revision, local_files_only)
        model = load(folder, device=device) if holds_environment(folder) else read_model(folder).to(device)
        if not isinstance(model, cls):
            raise TypeError(
                f"{pretrained_model_name_or_path} holds a {type(model).__name__}, which is no {cls.__name__}: use "
                f"{type(model).__name__}.from_pretrained, or learned_envs.load."
            )
        return model

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a world model",
        private: bool | None = None,
        branch: str | None = None,
        token: str | bool | None = None,
    ) -> str:
        """Publish the model; the repository is made if there is none.

        Args:
            repo_id: Where it goes, ``organization/name``.
            commit_message: Title of the commit.
            private: Whether a new repository is private; None for the organization's own rule.
            branch: Branch; None for the main one.
            token: A token, or None for that of `hf auth login` or HF_TOKEN.

        Returns:
            Address of the commit.

        Raises:
            ValueError: If the model is of no family that can be saved.
            huggingface_hub.errors.HfHubHTTPError: If the Hub refuses.
        """
        from huggingface_hub import HfApi

        from learned_envs.manifest import CARD, write_manifest

        api = HfApi(token=token)
        with TemporaryDirectory() as temporary:
            folder = self.save_pretrained(Path(temporary) / "model")
            api.create_repo(repo_id, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            if not api.file_exists(repo_id, "README.md", revision=branch):
                kind = type(self)
                names = {"name": repo_id.rpartition("/")[2], "repository": repo_id}
                card = _CARD.format(module=kind.__module__, kind=kind.__name__, **names)
                (folder / CARD).write_text(card, encoding="utf-8")
                write_manifest(folder)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch
            )
        return done.commit_url

    def _as_model(self) -> Any:
        """Itself, as what it is mixed into."""
        return self
