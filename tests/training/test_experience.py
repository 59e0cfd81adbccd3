"""Recorded experience on disk and in memory."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.made_up import made_up_episode, made_up_experience
from training.experience import Episode, Experience, ExperienceError, read_manifest, write_manifest


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    episode = made_up_episode(5, seed=3)
    episode.save(tmp_path / "episode.npz")
    found = Episode.load(tmp_path / "episode.npz")
    for name in ("frames", "actions", "rewards"):
        mine, theirs = getattr(found, name), getattr(episode, name)
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), name
    assert (found.terminated, found.policy, found.seed) == (True, "policy-1", 3)
    assert type(found.terminated) is bool and type(found.seed) is int


def test_same_episode_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.npz", "second.npz"):
        made_up_episode(5).save(tmp_path / name)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_interrupted_saving_leaves_no_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(file, **_) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made_up_episode(5).save(tmp_path / "episode-00-00000.npz")
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("damage", ["truncated", "emptied", "changed", "other", "lacking", "pickled"])
def test_damaged_episode_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "episode-03-00001.npz"
    made_up_episode(5).save(path)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "changed":
        content[len(content) // 8] ^= 255
        path.write_bytes(content)
    elif damage == "other":
        path.write_bytes(b"no archive at all")
    elif damage == "lacking":
        np.savez(path, frames=np.zeros((2, 64, 64), np.uint8))
    else:
        with np.load(path) as archive:
            np.savez(path, **{**archive, "frames": np.array([{"runs": "code"}], dtype=object)})
    with pytest.raises(ExperienceError, match=r"episode-03-00001\.npz is not a complete episode.*Delete it"):
        Episode.load(path)


def test_steps_find_their_frames_also_in_later_episodes() -> None:
    """With three and two steps there are four and three frames; each episode's last one opens no step."""
    episodes = [made_up_episode(3, 0, terminated=True), made_up_episode(2, 1, terminated=False)]
    experience = Experience.from_episodes(episodes)
    assert len(experience) == 5
    assert experience.frames.shape == (7, 64, 64)
    assert experience.frame_index.tolist() == [0, 1, 2, 4, 5]
    for step, (episode, offset) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        row = experience.frame_index[step]
        assert np.array_equal(experience.frames[row], episodes[episode].frames[offset])
        assert np.array_equal(experience.frames[row + 1], episodes[episode].frames[offset + 1])
        assert experience.actions[step] == episodes[episode].actions[offset]
        assert experience.rewards[step] == episodes[episode].rewards[offset]
    assert experience.terminated.tolist() == [False, False, True, False, False]
    assert experience.first.tolist() == [0, 0, 0, 3, 3]
    assert experience.episode_starts.tolist() == [0, 3]
    assert experience.policies == ("policy-0", "policy-1")
    assert experience.actions.dtype == np.int64


def _write_recording(folder: Path, complete: bool = True) -> None:
    write_manifest(folder, {"config": {}, "complete": complete})
    for index, steps in enumerate((4, 6)):
        made_up_episode(steps, index).save(folder / f"episode-00-{index:05d}.npz")


def test_finished_recording_is_read_in_order(tmp_path: Path) -> None:
    _write_recording(tmp_path)
    (tmp_path / "episode-00-00002.partial").write_bytes(b"half")
    experience = Experience.load(tmp_path)
    assert experience.episode_starts.tolist() == [0, 4]
    assert np.array_equal(experience.frames, made_up_experience((4, 6)).frames)


def test_unfinished_recording_is_refused_with_the_way_to_finish_it(tmp_path: Path) -> None:
    _write_recording(tmp_path, complete=False)
    with pytest.raises(ExperienceError, match=r"not finished.*same collect command"):
        Experience.load(tmp_path)


def test_missing_recording_is_refused_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ExperienceError, match="python -m training collect ID"):
        Experience.load(tmp_path)
    write_manifest(tmp_path, {"complete": True})
    with pytest.raises(ExperienceError, match="no recorded episode"):
        Experience.load(tmp_path)


@pytest.mark.parametrize(("content", "word"), [("{", "not JSON"), (json.dumps({"format": 99}), "format 99")])
def test_manifest_that_does_not_fit_is_refused(tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ExperienceError, match=rf"manifest\.json .*{word}"):
        read_manifest(tmp_path)
