"""What stands before every page: who may ask at all, how much they may send, what a browser may do.

Pure ASGI, so that streams pass untouched. Invariant: a request reaches the application only if it
names a host that is ours (a foreign page cannot rebind a name to this machine), comes from no
foreign page, and is small; every answer, refusals too, carries the security headers. Knows neither
accounts nor what the application answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 256 * 1024
BODY_DEADLINE_S = 15.0
"""Within this time a body must have come whole; who sends it byte by byte is let go."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
"""With `no-referrer` a browser would call the origin of our own forms `null`."""
_NO_STORE = (b"cache-control", b"no-store")


@dataclass(frozen=True, slots=True)
class Site:
    """Where an application is served: the address it is bound to, and the public one if any."""

    host: str
    public_url: str = ""

    @property
    def private(self) -> bool:
        """Say whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Say whether browsers reach it by TLS."""
        return self.public_url.startswith("https://")

    def admits_host(self, host: str) -> bool:
        """Say whether a Host header may name us.

        A name is ours only if it is configured; an address cannot be rebound, so where others may
        ask at all, any address will do.
        """
        if self.public_url and host == urlsplit(self.public_url).netloc:
            return True
        name = _without_port(host)
        if name is None:
            return False
        if name == "localhost" or is_loopback(name):
            return True
        return not self.private and (name == self.host.lower() or _is_address(name))

    def admits_origin(self, origin: str, host: str) -> bool:
        """Say whether a page of this origin may ask the host that it asked."""
        return origin in {f"http://{host}", self.public_url or f"http://{host}"}


class Guard:
    """Wrap an ASGI application. `host` and `origin` of a request are looked at before anything."""

    def __init__(self, app: ASGIApp, site: Site, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._site = site
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with one plain sentence."""
        if scope["type"] != "http":
            return  # no page of ours speaks anything else
        guarded = _with_headers(send)
        refusal = self._refusal(scope)
        if refusal:
            await refuse(guarded, *refusal)
            return
        if scope["method"] in SAFE_METHODS:
            await self._app(scope, receive, guarded)
            return
        body = await self._body(receive)
        if isinstance(body, str):
            await refuse(guarded, 413 if body == _TOO_LARGE else 408, body)
            return
        await self._app(scope, _replay(body, receive), guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts, origins = header_values(scope, b"host"), header_values(scope, b"origin")
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._site.admits_host(host):
            return 421, "This address is not one that Thumbtune is served under."
        foreign = len(origins) > 1 or any(
            not self._site.admits_origin(origin.lower(), host) for origin in origins
        )
        site = (header_values(scope, b"sec-fetch-site") or ["none"])[0]
        across = site == "cross-site" and scope["method"] not in SAFE_METHODS
        if foreign or across:
            return 403, "The request came from another site's page, so it was not answered."
        declared = header_values(scope, b"content-length")
        if declared and (not declared[0].isdecimal() or int(declared[0]) > self._max_body_bytes):
            return 413, _TOO_LARGE
        return None

    async def _body(self, receive: Receive) -> bytes | str:
        """Return the whole body, or the sentence that says why not."""
        parts: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(BODY_DEADLINE_S):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return _TOO_SLOW
                    parts.append(message.get("body", b""))
                    size_bytes += len(parts[-1])
                    if size_bytes > self._max_body_bytes:
                        return _TOO_LARGE
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            return _TOO_SLOW


_TOO_LARGE = "The request is larger than anything Thumbtune takes; send less."
_TOO_SLOW = "The request did not come whole in time; send it again."


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a request's header, in order."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


async def refuse(send: Send, status: int, sentence: str) -> None:
    """Answer with a status and one plain sentence."""
    body = sentence.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine's own, as an address or as `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str | None:
    """Return the name in a Host header, None for what is none."""
    if any(letter in host for letter in "/@\\ ,"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 # raises where it is no number
    except ValueError:
        return None
    return parts.hostname


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands the body out once, then tells of a broken line."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            named = {key.lower() for key, _ in message.get("headers", ())}
            more = [_NO_STORE] if b"cache-control" not in named else []
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS, *more]}
        await send(message)

    return sent
