"""Plays a session for one page: keeps its time, obeys its messages, tells it what happens, and films.

A session is played by the page that connected last. Reloading the page, or opening it elsewhere, goes on where the games stand.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from fastapi import WebSocket, WebSocketDisconnect

from learned_envs.play import messages
from learned_envs.play.film import write_film
from learned_envs.play.messages import describe_moment, describe_session, parse_message
from learned_envs.play.session import Moment, Session

__all__ = ["LONGEST_FILM", "Player"]

LONGEST_FILM = 3000
"""Most moments of a film; while a GIF of that many is written, it takes about half a gigabyte of memory."""
_REPLACED = 4001  # how a page is told that another one plays now
_GONE = (WebSocketDisconnect, RuntimeError)  # what telling a page raises that has left; who hears it will notice
_MENDABLE = (gym.error.Error, ValueError, RuntimeError, OSError)

Result = TypeVar("Result")


class Player:
    """One session, played by one page at a time.

    Args:
        session: What is played.
        out: Folder for films; made when the first is written.
        speed: Steps a second, at most `messages.MAX_SPEED`.
    """

    def __init__(self, session: Session, out: Path, speed: float) -> None:
        self.session = session
        self.out = out
        self.films: dict[str, dict[str, Any]] = {}
        """What the page was told of each film that is written, by its name."""
        self._speed = speed
        self._rate = 0.0
        self._action: Any = _still(session)
        self._film: list[Moment] | None = None
        self._page: WebSocket | None = None
        self._running = asyncio.Event()
        self._lock = asyncio.Lock()  # one change at a time, and none while it is told
        self._worker = ThreadPoolExecutor(1, "play")  # so that a slow model does not keep the page from being heard
        self._writing = 0  # films
        self._names: set[str] = set()  # of films that are written or being written
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, page: WebSocket) -> None:
        """Play with a page until it leaves; the one before it is dismissed."""
        await page.accept()
        clock = asyncio.create_task(self._keep_time(page))
        try:
            async with self._lock:
                await self._greet(page)
            while (said := await page.receive())["type"] == "websocket.receive":
                await self._hear(page, said.get("text") or "")
        finally:
            async with self._lock:  # a step that is running goes on in its thread, whoever waits for it
                clock.cancel()
            if self._page is page:
                self._page = None
                self._running.clear()

    def close(self) -> None:
        """Free what the games hold."""
        self._worker.shutdown()
        self.session.close()

    async def _greet(self, page: WebSocket) -> None:
        """Let a page play from now on, and tell it what and how far."""
        previous, self._page = self._page, page
        if previous is not None:
            with suppress(*_GONE):
                await previous.close(_REPLACED, "The game was opened in another window.")
        self._running.clear()
        self._action = _still(self.session)
        await self._tell({"type": "hello", **describe_session(self.session), "films": list(self.films.values())})
        await self._tell(self._update(everything=True))

    async def _hear(self, page: WebSocket, text: str) -> None:
        """Obey a message, or say why not; a page that was dismissed has nothing to say any more."""
        async with self._lock:
            if self._page is not page:
                return
            try:
                await self._obey(parse_message(text))
            except _MENDABLE as error:
                await self._complain(error)

    async def _complain(self, error: Exception) -> None:
        self._running.clear()
        await self._tell({"type": "error", "message": " ".join(str(error).split())})
        await self._tell(self._update())

    async def _obey(self, message: messages.Message) -> None:
        session = self.session
        match message:
            case messages.Control(action=action):
                session.parse_action(action)
                self._action = action
            case messages.Look(step=step):
                self._running.clear()
                look = describe_moment(session.look(step), session.system)
                await self._tell({"type": "look", "moment": look, "status": self._status()})
            case messages.Play():
                session.parse_action(self._action)
                if session.now.over:
                    raise ValueError("The episode is over. Reset, or go back to an earlier step.")
                self._running.set()
                await self._tell(self._update())
            case messages.Pause():
                self._running.clear()
                await self._tell(self._update())
            case messages.Speed(value=value):
                self._speed = value
                await self._tell(self._update())
            case messages.Step():
                self._running.clear()
                await self._advance()
            case messages.Reset(seed=seed):
                await self._jump(lambda: session.reset(seed))
            case messages.Fork(step=step):
                await self._jump(lambda: session.fork(step))
            case messages.Switch(branch=branch):
                await self._jump(lambda: session.switch(branch))
            case messages.TakeOver():
                await self._change(session.take_over)
                await self._tell(self._update())
            case messages.Record(on=True):
                if self._film is None:
                    self.out.mkdir(parents=True, exist_ok=True)  # says now if there is no place for films
                    self._film = [session.now]
                await self._tell(self._update())
            case messages.Record(format=suffix):
                self._end_film(suffix)
                await self._tell(self._update())

    async def _keep_time(self, page: WebSocket) -> None:
        """Take steps while time runs, as many a second as were asked for, or as the model can."""
        loop = asyncio.get_running_loop()
        due = last = loop.time()
        while True:
            if not self._running.is_set():
                await self._running.wait()
                due, self._rate = loop.time(), self._speed
                last = due - 1 / self._speed
            await asyncio.sleep(due - loop.time())
            async with self._lock:
                if self._page is not page or not self._running.is_set():
                    continue
                self._rate += 0.1 * (1 / max(1e-3, loop.time() - last) - self._rate)
                last = loop.time()
                try:
                    await self._advance()
                except _MENDABLE as error:
                    await self._complain(error)
            due = max(due + 1 / self._speed, loop.time())

    async def _advance(self) -> None:
        moment = await self._change(lambda: self.session.step(self._action))
        if moment.over:
            self._running.clear()
        await self._tell(self._update())

    async def _jump(self, go: Callable[[], Moment]) -> None:
        """Go to a moment that does not follow the one before, and stand still there."""
        self._running.clear()
        await self._change(go)
        await self._tell(self._update(everything=True))

    async def _change(self, change: Callable[[], Moment]) -> Moment:
        """Let the session do something, beside the loop that hears the page."""
        moment = await asyncio.get_running_loop().run_in_executor(self._worker, change)
        if self._film is not None and len(self._film) < LONGEST_FILM:
            self._film.append(moment)
            if len(self._film) == LONGEST_FILM:
                self._end_film("mp4")
        return moment

    def _end_film(self, suffix: str) -> None:
        """Write the film while play goes on."""
        if self._film is None:
            raise ValueError("There is no film to end: it was not begun.")
        film, self._film = self._film, None
        self._writing += 1
        task = asyncio.create_task(self._write_film(film, suffix))
        self._tasks.add(task)  # or it might be collected before it is done
        task.add_done_callback(self._tasks.discard)

    async def _write_film(self, film: list[Moment], suffix: str) -> None:
        try:
            path = _unused(self.out, self.session.config.id, suffix, self._names)
            self._names.add(path.name)
            await asyncio.to_thread(write_film, path, film, self.session.system, self._speed)
        except _MENDABLE as error:
            self._film = self._film or film  # to be ended again, in another format, or when there is room
            told = {"type": "error", "message": f"The film was not written: {error}"}
        else:
            name = path.name
            told = {"type": "film", "name": name, "url": f"/films/{name}", "path": str(path), "moments": len(film)}
            self.films[name] = told
        async with self._lock:
            self._writing -= 1
            await self._tell(told)
            await self._tell(self._update())

    def _update(self, everything: bool = False) -> dict[str, Any]:
        """Where the games stand; with ``everything``, also how they came there, without pictures."""
        session = self.session
        told = {"type": "update", "status": self._status(), "moment": describe_moment(session.now, session.system)}
        if everything:
            told["timeline"] = [describe_moment(moment, session.system, pictures=False) for moment in session.moments]
        return told

    def _status(self) -> dict[str, Any]:
        return {
            "running": self._running.is_set(),
            "speed": self._speed,
            "rate": self._rate,
            "seed": self.session.seed,
            "filmed": None if self._film is None else len(self._film),
            "writing": self._writing,
            "branches": [
                {"step": tip.step, "learned": tip.learned.score, "real": tip.real and tip.real.score}
                for tip in self.session.branches
            ],
        }

    async def _tell(self, message: dict[str, Any]) -> None:
        if self._page is not None:
            with suppress(*_GONE):
                await self._page.send_json(message)


def _still(session: Session) -> Any:
    """The action of a person who does nothing: the one called NOOP, or the first; sliders in the middle."""
    if session.system is not None:
        return [0.0] * session.system.action_dim
    meanings = session.config.environment.action_meanings
    return meanings.index("NOOP") if "NOOP" in meanings else 0


def _unused(folder: Path, id: str, suffix: str, taken: set[str]) -> Path:
    """A name that no film has yet."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder / f"{id}-{number:03d}.{suffix}").exists() or path.name in taken:
        number += 1
    return path
