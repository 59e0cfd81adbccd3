"""A real server in a thread, and a page without a browser that talks to it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from websockets.sync.client import ClientConnection, connect

from learned_envs.play.player import Player
from learned_envs.play.server import listen, make_app
from learned_envs.play.session import Session

__all__ = ["Page", "open_page", "serve"]

_HOSTS = ["127.0.0.1", "localhost"]


@contextmanager
def serve(session: Session, out: Path, speed: float = 60.0) -> Iterator[str]:
    """Serve a session, and give the address, without scheme."""
    listener = listen("127.0.0.1", 0)
    app = make_app(Player(session, out, speed), _HOSTS)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Page:
    """What a browser would say and hear."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def say(self, type: str, **rest: Any) -> None:
        self.send(json.dumps({"type": type, **rest}))

    def send(self, raw: str | bytes) -> None:
        self._socket.send(raw)

    def hear(self, kind: str, wanted: Callable[[dict[str, Any]], bool] = lambda message: True) -> dict[str, Any]:
        """The next message of a kind that is as wanted."""
        deadline = time.monotonic() + 60
        while (left := deadline - time.monotonic()) > 0:
            message = json.loads(self._socket.recv(timeout=left))
            if message["type"] == kind and wanted(message):
                return message
        raise AssertionError(f"heard no {kind} as wanted")

    def ask(self, type: str, **rest: Any) -> dict[str, Any]:
        """Say something that changes things, and hear how they stand."""
        self.say(type, **rest)
        return self.hear("update")


@contextmanager
def open_page(address: str) -> Iterator[Page]:
    """Connect as a page does, and hear its greeting."""
    with connect(f"ws://{address}/play", origin=f"http://{address}", max_size=None) as socket:  # type: ignore[arg-type]
        yield Page(socket)
