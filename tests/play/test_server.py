"""The server as pages meet it: a real one, on a port of its own."""

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageSequence
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from learned_envs.play import player
from learned_envs.play.session import Session
from tests.play.serving import Page, open_page, serve
from tests.tiny import CONTROL_HORIZON


@pytest.fixture
def address(control: str, tmp_path: Path) -> Iterator[str]:
    """Of a server with a control problem."""
    with serve(Session(control), tmp_path / "films") as address:
        yield address


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A page that was greeted."""
    with open_page(address) as page:
        page.hear("update")
        yield page


def _get(url: str, **headers: str) -> tuple[int, Any, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_page_comes_whole_and_from_this_server_only(address: str) -> None:
    code, headers, content = _get(f"http://{address}/")
    assert code == 200 and b'<script type="module" src="app.js">' in content
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert b"http://" not in content and b"https://" not in content
    for name, kind in (
        ("app.js", "javascript"),
        ("charts.js", "javascript"),
        ("style.css", "css"),
        ("icon.svg", "svg"),
    ):
        code, headers, content = _get(f"http://{address}/{name}")
        assert code == 200 and kind in headers["Content-Type"] and content


@pytest.mark.parametrize("path", ["nothing", "films/other.mp4", "films/..%2F..%2Fpyproject.toml", "../server.py"])
def test_what_is_not_there(address: str, path: str) -> None:
    assert _get(f"http://{address}/{path}")[0] == 404


def test_names_of_strangers_do_not_lead_here(address: str) -> None:
    assert _get(f"http://{address}/", Host="evil.example")[0] == 400


def test_pages_of_strangers_may_not_play(address: str) -> None:
    with pytest.raises(InvalidStatus), connect(f"ws://{address}/play", origin="http://evil.example"):  # type: ignore[arg-type]
        pass


def test_greeting_tells_what_is_played(address: str) -> None:
    with open_page(address) as page:
        hello = page.hear("hello")
        assert (hello["kind"], hello["horizon"]) == ("problem", CONTROL_HORIZON)
        assert hello["sliders"] == [{"label": "u1", "low": 0.0, "high": 2.0}] and hello["values"] == ["x1"]
        update = page.hear("update")
        assert [moment["step"] for moment in update["timeline"]] == [0]
        assert update["status"]["running"] is False


def test_greeting_of_a_game_brings_its_keys_and_pictures(tiny_pong: Path, tmp_path: Path) -> None:
    with serve(Session(str(tiny_pong), real=False), tmp_path) as address, open_page(address) as page:
        hello, update = page.hear("hello"), page.hear("update")
        assert [binding["label"] for binding in hello["bindings"]][:3] == ["NOOP", "FIRE", "RIGHT"]
        assert hello["missing_twin"] and update["moment"]["real"] is None
        assert update["moment"]["learned"]["picture"].startswith("data:image/png;base64,")
        assert "picture" not in update["timeline"][0]["learned"]


def test_single_steps_take_what_the_sliders_say(page: Page, control: str) -> None:
    page.say("control", action=[0.5])
    alone = Session(control)
    for step in (1, 2):
        moment, expected = page.ask("step")["moment"], alone.step([0.5])
        assert moment["step"] == step and moment["action"] == [0.5]
        assert moment["learned"]["values"] == pytest.approx(expected.learned.observation[:1].tolist())
        assert moment["real"]["reward"] == pytest.approx(expected.real.reward if expected.real else None)


def test_time_runs_until_it_is_paused_or_the_episode_is_over(page: Page) -> None:
    assert page.ask("play")["status"]["running"] is True
    page.hear("update", lambda told: told["moment"]["step"] >= 3)
    page.say("pause")
    stopped = page.hear("update", lambda told: not told["status"]["running"])["moment"]["step"]
    assert page.ask("speed", value=30)["moment"]["step"] == stopped
    page.say("play")
    end = page.hear("update", lambda told: told["moment"]["step"] == CONTROL_HORIZON)
    assert end["status"]["running"] is False
    assert end["moment"]["learned"]["end"] == end["moment"]["real"]["end"] == "truncated"
    page.say("play")
    assert "episode is over" in page.hear("error")["message"]


def test_fork_switch_take_over_and_reset(page: Page) -> None:
    for _ in range(5):
        page.ask("step")
    page.say("look", step=2)
    look = page.hear("look")
    assert look["moment"]["step"] == 2
    forked = page.ask("fork", step=2)
    assert [moment["step"] for moment in forked["timeline"]] == [0, 1, 2]
    assert [branch["step"] for branch in forked["status"]["branches"]] == [5]
    assert forked["moment"]["learned"] == look["moment"]["learned"]
    assert page.ask("switch", branch=0)["moment"]["step"] == 5
    taken = page.ask("take_over")["moment"]
    assert taken["taken_over"] and taken["learned"]["values"] == taken["real"]["values"]
    again = page.ask("reset", seed=9)
    assert again["status"]["seed"] == 9 and len(again["timeline"]) == 1 and not again["status"]["branches"]
    assert page.ask("reset")["status"]["seed"] == 10


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "message"),
        ("{", "message"),
        ("[]", "message"),
        (b"\x00", "message"),
        ('{"type": "dance"}', "dance"),
        ('{"type": "step", "now": 1}', "now"),
        ('{"type": "speed", "value": 1000}', "value"),
        ('{"type": "speed", "value": NaN}', "value"),
        ('{"type": "look", "step": 7}', "step is 7"),
        ('{"type": "fork", "step": -1}', "step is -1"),
        ('{"type": "switch", "branch": 0}', "branch is 0"),
        ('{"type": "control", "action": 2}', "action is 2"),
        ('{"type": "control", "action": [2.0]}', "action is [2.0]"),
        ('{"type": "record", "on": false}', "not begun"),
        ('{"type": "record", "on": false, "format": "exe"}', "format"),
        ('{"type": "reset", "seed": -3}', "seed is -3"),
        ('{"type": "reset", "seed": 1e9}', "seed"),
    ],
)
def test_nonsense_is_told_and_changes_nothing(page: Page, raw: str | bytes, words: str) -> None:
    page.send(raw)
    assert words in page.hear("error")["message"]
    assert page.hear("update")["moment"]["step"] == 0
    assert page.ask("step")["moment"]["step"] == 1


def test_reloaded_page_goes_on_where_the_games_stand(address: str) -> None:
    with open_page(address) as page:
        page.hear("update")
        for _ in range(3):
            page.ask("step")
        page.say("play")
    with open_page(address) as page:
        update = page.hear("update")
        stopped = update["moment"]["step"]
        assert stopped >= 3 and len(update["timeline"]) == stopped + 1
        assert update["status"]["running"] is False
        assert page.ask("step")["moment"]["step"] == stopped + 1


def test_second_page_takes_over_from_the_first(address: str) -> None:
    with open_page(address) as first:
        first.hear("update")
        with open_page(address) as second:
            second.hear("update")
            with pytest.raises(ConnectionClosed) as closed:
                first.hear("never")
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4001
            assert second.ask("step")["moment"]["step"] == 1


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_film_shows_every_step_and_is_kept(page: Page, address: str, tmp_path: Path, suffix: str) -> None:
    page.ask("record", on=True)
    filmed = [page.ask("step")["status"]["filmed"] for _ in range(4)]
    assert filmed == [2, 3, 4, 5]
    page.say("record", on=False, format=suffix)
    film = page.hear("film")
    path = tmp_path / "films" / f"LearnedTiny-v0-001.{suffix}"
    assert film["path"] == str(path) and film["moments"] == 5
    assert page.hear("update")["status"]["writing"] == 0
    code, _, content = _get(f"http://{address}{film['url']}")
    assert code == 200 and content == path.read_bytes()
    assert _count_pages(path) == 5
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing half written is left"
    page.ask("record", on=True)
    page.say("record", on=False, format=suffix)
    assert page.hear("film")["name"].endswith(f"-002.{suffix}"), "the first film is not overwritten"


def _count_pages(path: Path) -> int:
    if path.suffix == ".gif":
        with Image.open(path) as film:
            return sum(1 for _ in ImageSequence.Iterator(film))
    with av.open(path) as film:
        return sum(1 for _ in film.decode(video=0))


def test_film_of_pictures(tiny_pong: Path, tmp_path: Path) -> None:
    with serve(Session(str(tiny_pong), real=False), tmp_path) as address, open_page(address) as page:
        page.hear("update")
        page.ask("record", on=True)
        page.ask("step")
        page.say("record", on=False, format="mp4")
        path = Path(page.hear("film")["path"])
    with av.open(path) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (256, 284, "h264")


def test_long_film_ends_by_itself(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "LONGEST_FILM", 3)
    page.ask("record", on=True)
    page.ask("step")
    page.say("step")
    assert page.hear("film")["moments"] == 3
    page.hear("update")
    assert page.ask("step")["status"]["filmed"] is None


def test_film_that_cannot_be_written_is_told_and_kept(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.ask("record", on=True)
    page.ask("step")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        page.say("record", on=False, format="mp4")
        assert "MP4 needs PyAV" in page.hear("error")["message"]
    assert page.hear("update")["status"]["filmed"] == 2
    page.say("record", on=False, format="gif")
    assert page.hear("film")["moments"] == 2


def test_film_without_a_place_is_refused_before_it_is_begun(page: Page, tmp_path: Path) -> None:
    (tmp_path / "films").write_text("a file")
    page.say("record", on=True)
    assert "films" in page.hear("error")["message"]
    assert page.hear("update")["status"]["filmed"] is None
    assert page.ask("step")["moment"]["step"] == 1


def test_reloaded_page_knows_the_films(page: Page, address: str) -> None:
    page.ask("record", on=True)
    page.say("record", on=False, format="gif")
    film = page.hear("film")
    with open_page(address) as again:
        assert again.hear("hello")["films"] == [film]


def test_numbers_that_are_not_finite_are_sent_as_none(control: str, tmp_path: Path) -> None:
    """JSON has no word for them, and browsers refuse what Python writes instead."""
    session = Session(control)
    session.now.learned.observation[0] = float("nan")
    with serve(session, tmp_path) as address, open_page(address) as page:
        assert page.hear("update")["moment"]["learned"]["values"] == [None]
