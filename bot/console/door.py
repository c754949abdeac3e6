"""Behind the guard and before the pages: the browser's session, the password, the token.

Invariant: nothing but the log-in, the style sheets and the sign of life is shown to a browser that
has not given the password, where there is one; nothing changes without the session's own token and
an origin that is ours. Pure ASGI, so that streams pass untouched.
"""

from __future__ import annotations

import logging
from http.cookies import CookieError, SimpleCookie

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.console.sessions import COOKIE, LIFE_S, Session, Sessions
from bot.web.guard import SAFE_METHODS, header_values, refuse

log = logging.getLogger(__name__)
LOGIN = "/login"
OPEN_PATHS = (LOGIN, "/alive")
STATIC = "/static/"
TOKEN_HEADER = b"x-csrf-token"


class Door:
    """Wrap the console. `locked` says that there is a password, `secure` that TLS is in use."""

    def __init__(self, app: ASGIApp, sessions: Sessions, *, locked: bool, secure: bool) -> None:
        self._app = app
        self._sessions = sessions
        self._locked = locked
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its session, or send it to the log-in, or refuse it."""
        if scope["path"].startswith(STATIC):
            await self._answer(scope, receive, send)
            return
        session = self._session(scope)
        if session is None:
            session = self._sessions.begin(known=not self._locked)
            send = with_cookie(send, self.cookie_header(session))
        if self._locked and not session.known and scope["path"] not in OPEN_PATHS:
            await _to_login(scope, send)
            return
        if scope["method"] not in SAFE_METHODS and not self._may_change(scope, session):
            await refuse(send, 403, "This page is too old to be used. Reload it and try again.")
            return
        state = {**scope.get("state", {}), "session": session, "door": self}
        await self._answer({**scope, "state": state}, receive, send)

    def token(self, session: Session) -> str:
        """Return the token that the pages of a session carry."""
        return self._sessions.token(session)

    def let_in(self) -> str:
        """Return the Set-Cookie header of a fresh session that gave the password."""
        return self.cookie_header(self._sessions.begin(known=True))

    def cookie_header(self, session: Session | None) -> str:
        """Return the Set-Cookie header of a session; None takes the cookie away.

        Not `Strict`: a link from elsewhere would come without it, be given a fresh one, and so log
        the person out.
        """
        value = self._sessions.cookie(session) if session else ""
        secure = "; Secure" if self._secure else ""
        life = LIFE_S if session else 0
        return f"{COOKIE}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}"

    @property
    def locked(self) -> bool:
        """Say whether there is a password."""
        return self._locked

    def _session(self, scope: Scope) -> Session | None:
        for header in header_values(scope, b"cookie"):
            try:
                cookie = SimpleCookie(header).get(COOKIE)
            except CookieError:
                continue
            session = self._sessions.read(cookie.value) if cookie else None
            if session is not None:
                return session
        return None

    def _may_change(self, scope: Scope, session: Session) -> bool:
        tokens = header_values(scope, TOKEN_HEADER)
        there = bool(header_values(scope, b"origin"))  # that it is ours, the guard has seen
        return there and len(tokens) == 1 and self._sessions.token_fits(session, tokens[0])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; what it did not foresee is logged and told without its details."""
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception:  # the one place where a page may break: the rest must go on
            log.exception("%s %s broke", scope["method"], scope["path"])
            if begun:
                raise
            await refuse(send, 500, "Something broke here; Thumbtune's log says what.")


def with_cookie(send: Send, header: str) -> Send:
    """Return a `send` whose answer sets a cookie, unless it sets one itself."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if not any(key.lower() == b"set-cookie" for key, _ in headers):
                headers.append((b"set-cookie", header.encode("latin-1")))
            message = {**message, "headers": headers}
        await send(message)

    return sent


async def _to_login(scope: Scope, send: Send) -> None:
    """Send a page to the log-in, and a part of a page too."""
    partly = bool(header_values(scope, b"hx-request"))
    where = b"hx-redirect" if partly else b"location"
    safe = scope["method"] in SAFE_METHODS
    status = 401 if partly or not safe else 303
    headers = [(where, LOGIN.encode()), (b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"Give the password first."})
