"""The local web server of the page.

It listens on this machine only, unless told otherwise, and answers no page but its own: other pages that are open in the same
browser could reach it too.
"""

import errno
import socket
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
import websockets  # noqa: F401 - uvicorn does without it, but then answers no websocket
from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from rich.console import Console
from starlette.middleware.trustedhost import TrustedHostMiddleware

from learned_envs.play.messages import MAX_SPEED
from learned_envs.play.player import Player
from learned_envs.play.session import Session

__all__ = ["listen", "make_app", "run_play"]

_STATIC = Path(__file__).parent / "static"
_MAX_MESSAGE = 2**16  # bytes that a page may say at once
_GAME_SPEED, _PROBLEM_SPEED = (
    15.0,
    5.0,
)  # steps a second: that of the emulator, and one at which a person can steer numbers
_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def run_play(
    model: str,
    *,
    host: str,
    port: int,
    device: str,
    seed: int,
    speed: float | None,
    real: bool,
    out: Path,
    open_browser: bool,
    console: Console,
    revision: str | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        model: Id, folder of a snapshot, or repository on the Hub.
        host: Address to listen on.
        port: Port to listen on; 0 takes any that is free.
        device: Where the model runs.
        seed: Seed of the games.
        speed: Steps a second to begin with; None takes what suits the model.
        real: Whether to play the real twin beside it, if it is to be had.
        out: Folder for films.
        open_browser: Whether to open the page in the browser.
        console: Where to print.
        revision: Branch, tag or commit of a model on the Hub.

    Raises:
        ValueError: If an argument lies outside its range.
        OSError: If the port is taken or may not be used.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """
    if speed is not None and not 0.5 <= speed <= MAX_SPEED:
        raise ValueError(f"speed is {speed}, but must lie between 0.5 and {MAX_SPEED:g} steps a second.")
    with listen(host, port) as listener:
        session = Session(model, device=device, seed=seed, real=real, revision=revision)
        if real and session.missing_twin:
            console.print(f"Going on without the real game. {session.missing_twin}", soft_wrap=True)
        address = _address(listener)
        console.print(f"Play {session.config.id} on {address} (Ctrl-C ends it)", soft_wrap=True)
        if not _is_loopback(host):
            console.print("Everybody who can reach this address can play.", soft_wrap=True)
        if speed is None:
            speed = _GAME_SPEED if session.system is None else _PROBLEM_SPEED
        app = make_app(Player(session, out, speed), _own_names(host))
        if open_browser:
            webbrowser.open(address)
        # uvicorn's own logging set-up would close the log handlers of everybody else in the process, and so their files.
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            ws_max_size=_MAX_MESSAGE,
            timeout_graceful_shutdown=1,
            lifespan="on",
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            console.print("Stopped.")


def listen(host: str, port: int) -> socket.socket:
    """Take a port.

    Args:
        host: Address or name of this machine.
        port: 0 to 65535; 0 takes any that is free.

    Raises:
        ValueError: If the port lies outside its range.
        OSError: If it is taken, may not be used, or the host is not this machine.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, but ports go from 0 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"port {port} on {host} is already in use. Choose another with --port; 0 takes any free one.",
            errno.EACCES: f"port {port} needs rights that this user has not. Choose one above 1023 with --port.",
        }
        message = reasons.get(
            error.errno or 0, f"host {host!r} is no address of this machine ({error}). Use --host 127.0.0.1."
        )
        raise OSError(message) from error


def make_app(player: Player, hosts: list[str]) -> FastAPI:
    """The page, its websocket and its films.

    Args:
        player: Who plays.
        hosts: Names under which the server answers; ``["*"]`` for any.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        player.close()

    app = FastAPI(title="learned_envs", openapi_url=None, lifespan=lifespan)

    @app.middleware("http")
    async def protect(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"  # a newer version of the package brings a newer page
        return response

    @app.websocket("/play")
    async def play(page: WebSocket) -> None:
        if _is_foreign(page):
            await page.close(1008, "Only the page of this server may play.")
            return
        await player.serve(page)

    @app.get("/films/{name}")
    async def film(name: str) -> FileResponse:
        if name not in player.films:
            raise HTTPException(404, f"There is no film {name!r}.")
        return FileResponse(player.films[name]["path"], filename=name)

    app.mount("/", StaticFiles(directory=_STATIC, html=True))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return app


def _is_foreign(page: WebSocket) -> bool:
    """Whether it is another site's page that wants to play; programs, which name no site, may."""
    origin = page.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != page.headers.get("host")


def _own_names(host: str) -> list[str]:
    """Names that lead here. On loopback no others may, or a site could have its own name lead here."""
    return ["127.0.0.1", "localhost", "::1", "[::1]", host] if _is_loopback(host) else ["*"]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
