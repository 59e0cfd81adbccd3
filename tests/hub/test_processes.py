"""Many processes that find an empty cache at once, and one that knows the Hub from its environment alone."""

import multiprocessing
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learned_envs.download import download
from learned_envs.manifest import ENVIRONMENT, MANIFEST, damaged_files
from tests.hub.conftest import TOKEN
from tests.hub.server import Hub

_PROCESSES = 16
_LOAD = """
import gymnasium as gym
env = gym.make("learned_envs:Learned-v0", model="lab/model", revision="v1.0")
print(env.reset(seed=0)[0].tolist())
"""


def _fetch(begin: Any, results: Any) -> None:
    begin.wait()
    try:
        results.put(str(download("lab/model")))
    except Exception as error:
        results.put(f"failed: {error!r}")


def test_processes_that_start_at_once_all_succeed_and_share_the_files(
    hub: Hub, tiny_snapshots: dict[str, Path]
) -> None:
    hub.store.upload("lab/model", tiny_snapshots["compact"])
    hub.inject("slow", "/resolve/", "GET", value=0.05)  # long enough that all of them want each file at once
    context = multiprocessing.get_context("fork")
    begin, results = context.Barrier(_PROCESSES), context.Queue()
    processes = [context.Process(target=_fetch, args=(begin, results)) for _ in range(_PROCESSES)]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(found)) == 1 and not found[0].startswith("failed"), found
    assert not list(damaged_files(Path(found[0])))
    assert {name: hub.count("GET", f"/{name}") <= 2 for name in (MANIFEST, *ENVIRONMENT)} == dict.fromkeys(
        (MANIFEST, *ENVIRONMENT), True
    )


def test_environment_variables_of_huggingface_hub_are_all_it_takes(
    hub: Hub, tiny_snapshots: dict[str, Path], start: Callable[..., subprocess.Popen[str]]
) -> None:
    """A mirror, a token, a cache of one's own, and no network."""
    hub.store.upload("lab/model", tiny_snapshots["awm-rnn"], tag="v1.0")
    repository = hub.store.get("lab/model")
    assert repository
    repository.private = True
    hub.store.put(repository)
    output, _ = start("-c", _LOAD, HF_TOKEN=TOKEN).communicate(timeout=120)
    assert output.startswith("[")
    requests = len(hub.requests)
    again = start("-c", _LOAD, HF_HUB_OFFLINE="1")
    refused = start("-c", _LOAD, HF_HUB_OFFLINE="1", HF_HOME="/nowhere/at/all")
    assert again.communicate(timeout=120)[0] == output
    assert "not in the cache" in refused.communicate(timeout=120)[1]
    assert len(hub.requests) == requests
