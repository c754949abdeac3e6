"""What every request must get past before anything looks at it: who it claims to come from, how
large it is, how long it takes.

On this machine's own address the Host header must be this machine's, so that no web page can reach
the API by a name that it points here; an Origin must be the address itself. How slowly a request
may arrive is bot.web.patience's business.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.api.errors import ApiError, respond
from core.sections import ApiSettings

_ONCE = (b"host", b"origin", b"authorization", b"content-length", b"content-type")
UPLOADS = "/v1/adapters/"
"""What is put there may be as large as an adapter."""
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """A middleware around the API alone."""

    def __init__(self, app: ASGIApp, settings: ApiSettings, *, private: bool) -> None:
        self._app = app
        self._settings = settings
        self._private = private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with its body counted and its time bounded."""
        if scope["type"] == "websocket":
            return  # nothing here speaks it
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = self._fault(scope)
        if fault:
            await respond(fault)(scope, receive, send)
            return
        await self._bounded(scope, self._counted(receive, self._limit(scope)), send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._settings.time_limit_s):
                await self._app(scope, receive, noted)
        except TimeoutError:
            if begun:
                return  # what is left unfinished, the server cuts off
            said = f"the request took longer than {self._settings.time_limit_s:g} seconds"
            await respond(ApiError(504, said, kind="server_error", code="timeout"))(
                scope, receive, send
            )

    def _limit(self, scope: Scope) -> int:
        sent = scope["method"] == "PUT" and scope["path"].startswith(UPLOADS)
        return self._settings.max_adapter_bytes if sent else self._settings.max_body_bytes

    def _counted(self, receive: Receive, limit: int) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        return counted

    def _fault(self, scope: Scope) -> ApiError | None:
        names = Counter(name for name, _ in scope["headers"])
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        for name in _ONCE:
            if names[name] > 1:
                return ApiError(400, f"the header {name.decode()} is there more than once")
        if names[b"content-length"] and names[b"transfer-encoding"]:
            return ApiError(400, "a request has a content-length or a transfer-encoding, not both")
        length = headers.get(b"content-length", "0")
        if not length.isascii() or not length.isdigit():
            return ApiError(400, "the content-length is no number")
        limit = self._limit(scope)
        if len(length) > 15 or int(length) > limit:
            return _too_large(limit)
        if headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
            return ApiError(403, "requests from another site are not taken", code="wrong_origin")
        return self._foreign(headers.get(b"host", ""), headers.get(b"origin"))

    def _foreign(self, host: str, origin: str | None) -> ApiError | None:
        if self._private and _hostname(host) not in (*_LOCAL_NAMES, self._settings.host):
            return ApiError(403, f"the host {host[:100]!r} is not this machine", code="wrong_host")
        if origin is not None and _place(origin) != host.lower():
            return ApiError(
                403,
                f"requests from the site {origin[:100]!r} are not taken; send them from a server",
                code="wrong_origin",
            )
        return None


def _place(origin: str) -> str | None:
    """Return `host:port` of a web origin, or None for what is none (`null` too)."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") and parts.netloc else None


def _hostname(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        alone = parts.netloc == host and "@" not in host and parts.port != 0
        return parts.hostname if alone else None
    except ValueError:
        return None


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request is larger than {limit} bytes", code="request_too_large")
