"""Each attack is refused, and the console goes on serving."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from bot.console.app import create_console
from bot.console.password import hash_password, matches, store_password
from bot.console.sessions import COOKIE, TRIES_EACH, Sessions
from bot.world import World
from core.errors import ConfigError, InvalidInput
from tests.bot.console.conftest import ORIGIN, Browser

PASSWORD = "four words make one"  # noqa: S105


@pytest.fixture
def locked(world: World) -> FastAPI:
    """A console with a password."""
    settings = world.settings.model_copy(update={"console_password": SecretStr(PASSWORD)})
    return create_console(world, settings)


@pytest.fixture
async def stranger(locked: FastAPI) -> AsyncIterator[Browser]:
    """A browser that has not given the password."""
    opened = Browser(locked)
    async with opened.client:
        await opened.get("/login")
        yield opened


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "evil.example:8700",
        "192.0.2.7",
        "",
        "a@b",
        "localhost/x",
        "127.0.0.1:x",
        "127.0.0.1, evil.example",
    ],
)
async def test_a_foreign_host_is_refused(browser: Browser, host: str) -> None:
    """A name that was rebound to this machine gets nothing."""
    assert (await browser.get("/chat", headers={"host": host})).status_code == 421
    assert (await browser.get("/chat")).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8700", "127.0.0.1", "[::1]:8700", "LOCALHOST"])
async def test_this_machines_own_names_are_served(browser: Browser, host: str) -> None:
    """Whatever a person types for this machine works."""
    assert (await browser.get("/chat", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", ""])
async def test_a_foreign_origin_changes_nothing(browser: Browser, origin: str) -> None:
    """Another site's page cannot post, even with the right token."""
    answer = await browser.post("/chat/new/messages", {"origin": origin}, text="hi")
    assert answer.status_code == 403
    assert (
        await browser.get("/alive", headers={"origin": "http://evil.example"})
    ).status_code == 403


@pytest.mark.parametrize("token", [b"", b"0" * 64, b"\xff"])
async def test_a_request_without_the_token_changes_nothing(browser: Browser, token: bytes) -> None:
    """A missing, made-up or odd token is refused in one sentence."""
    sent = {"origin": ORIGIN.encode(), "x-csrf-token": token}
    answer = await browser.client.post("/chat/new/messages", data={"text": "hi"}, headers=sent)
    assert (answer.status_code, "Reload" in answer.text) == (403, True)


async def test_a_request_without_an_origin_changes_nothing(browser: Browser) -> None:
    """Browsers say where a post comes from; what does not is refused."""
    sent = {"x-csrf-token": browser.token}
    answer = await browser.client.post("/chat/new/messages", data={"text": "hi"}, headers=sent)
    assert answer.status_code == 403


async def test_a_token_of_another_session_is_refused(browser: Browser, console: FastAPI) -> None:
    """The token belongs to one cookie."""
    other = Browser(console)
    await other.get("/chat")
    answer = await browser.post("/chat/new/messages", {"x-csrf-token": other.token}, text="hi")
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2f..%2fcore/settings.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/console.css%00.html",
        "/static/templates/base.html",
        "/../../etc/passwd",
        "/docs",
        "/redoc",
        "/openapi.json",
    ],
)
async def test_no_file_of_the_machine_is_reached(browser: Browser, path: str) -> None:
    """Names are looked up in a list; nothing else exists."""
    answer = await browser.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


async def test_a_large_body_is_refused(browser: Browser) -> None:
    """By what it declares, and by what comes where nothing is declared."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(400):
            yield b"x" * 1024

    sent = {"origin": ORIGIN, "x-csrf-token": browser.token}
    declared = await browser.post("/chat/new/messages", text="x" * 300_000)
    streamed = await browser.client.post("/chat/new/messages", content=parts(), headers=sent)
    assert (declared.status_code, streamed.status_code) == (413, 413)
    assert (await browser.get("/chat")).status_code == 200


async def test_every_answer_carries_the_headers(browser: Browser) -> None:
    """Pages, parts, refusals and files: no scripts but ours, no frames, no guessing of types."""
    answers = [await browser.get(path) for path in ("/chat", "/nothing", "/static/console.js")]
    answers.append(await browser.get("/chat", headers={"host": "evil.example"}))
    for answer in answers:
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    assert answers[0].headers["cache-control"] == "no-store"


async def test_pages_hold_nothing_from_elsewhere(browser: Browser) -> None:
    """No address of another machine, no script or style in the page, no handler in an attribute."""
    await browser.ask("Hello [x](https://example.org)?")
    page = (await browser.get("/chat")).text
    for needle in ('src="http', 'src="//', "<style", ' style="', " onclick", "<script>"):
        assert needle not in page
    assert page.count("<script") == page.count("<script src=") > 0


@pytest.mark.parametrize(
    "attack",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](http://evil.example/pixel.png)",
        '<a href="javascript:alert(1)">x</a>',
        "<svg onload=alert(1)>",
        '"><iframe srcdoc="<script>alert(1)</script>">',
    ],
)
async def test_what_people_write_is_shown_harmlessly(browser: Browser, attack: str) -> None:
    """In the conversation, in its title and in the list of conversations."""
    conversation, _ = await browser.ask(attack)
    page = (await browser.get(f"/chat/{conversation}")).text
    for needle in (
        "<script>",
        "<img src=x",
        '<a href="javascript',
        '<a href="data',
        "<iframe",
        "<svg on",
    ):
        assert needle not in page
    assert "evil.example/pixel.png" not in page.replace(
        "](http://evil.example/pixel.png)", ""
    ).replace('href="http://evil.example/pixel.png"', "")


async def test_nothing_is_shown_before_the_password(stranger: Browser) -> None:
    """Pages lead to the log-in, parts and posts are refused, files of style may be fetched."""
    page = await stranger.client.get("/chat")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    part = await stranger.client.get("/replies/r_1", headers={"hx-request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")
    assert (await stranger.post("/chat/new/messages", text="hi")).status_code == 401
    assert (await stranger.client.get("/static/console.css")).status_code == 200


async def test_the_password_lets_in_with_a_new_session(stranger: Browser) -> None:
    """The cookie before the log-in is worth nothing after it, and the new one is out of reach."""
    before = stranger.client.cookies[COOKIE]
    answer = await stranger.post("/login", password=PASSWORD)
    said = answer.headers["set-cookie"]
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/chat")
    assert "HttpOnly" in said and "SameSite=Lax" in said
    assert (await stranger.get("/chat")).url.path == "/chat/new"
    stranger.client.cookies.set(COOKIE, before)
    assert (await stranger.get("/chat")).url.path == "/login"


async def test_guessing_is_slowed_down(stranger: Browser) -> None:
    """After a few wrong ones even the right password must wait, whatever address is claimed."""
    for number in range(TRIES_EACH):
        claimed = {"x-forwarded-for": f"192.0.2.{number}"}
        assert (
            await stranger.post("/login", claimed, password=f"guess {number}")
        ).status_code == 403
    answer = await stranger.post("/login", password=PASSWORD)
    assert (answer.status_code, "Wait" in answer.text) == (429, True)


async def test_an_altered_cookie_is_worth_nothing(stranger: Browser) -> None:
    """Saying in the cookie that the password was given does not make it so."""
    identity, begun, _, signature = stranger.client.cookies[COOKIE].split(".")
    for forged in (f"{identity}.{begun}.1.{signature}", "....", "x", f"{identity}.{begun}.1."):
        stranger.client.cookies.set(COOKIE, forged)
        assert (await stranger.client.get("/chat")).status_code == 303


async def test_logging_out_takes_the_cookie_away(stranger: Browser) -> None:
    """The next page asks for the password again."""
    await stranger.post("/login", password=PASSWORD)
    await stranger.get("/chat")
    await stranger.post("/logout")
    assert (await stranger.get("/chat")).url.path == "/login"


async def test_it_may_be_mounted_beside_another_application(console: FastAPI) -> None:
    """Under a parent the pages, the guard and the door work as they do alone."""
    parent = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    parent.mount("/", console)
    opened = Browser(parent)
    async with opened.client:
        assert (await opened.get("/chat")).url.path == "/chat/new"
        answer = await opened.post("/chat/new/messages", text="hi")
        assert answer.headers["hx-redirect"].startswith("/chat/c_")
        assert (await opened.get("/chat", headers={"host": "evil.example"})).status_code == 421
        assert (await opened.post("/chat/new/messages", {"x-csrf-token": ""})).status_code == 403


def test_cookies_end_with_their_time_and_with_the_password() -> None:
    """An old one is not read, and a changed password ends them all."""
    now = [1000.0]
    sessions = Sessions(b"k", "one", lambda: now[0])
    cookie = sessions.cookie(sessions.begin(known=True))
    assert sessions.read(cookie)
    assert Sessions(b"k", "two", lambda: now[0]).read(cookie) is None
    now[0] += 31 * 24 * 3600
    assert sessions.read(cookie) is None


def test_a_password_is_kept_as_a_hash_alone() -> None:
    """The hash differs each time and fits one password."""
    one, other = hash_password(PASSWORD), hash_password(PASSWORD)
    assert one != other and PASSWORD not in one
    assert matches(PASSWORD, one) and not matches(PASSWORD + ".", one)


def test_others_reach_it_with_a_password_only(world: World) -> None:
    """Bound beyond this machine without one, it says what to do; a short one is refused."""
    wide = world.settings.console.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 # refused
    settings = world.settings.model_copy(update={"console": wide})
    with pytest.raises(ConfigError, match="thumbtune console-password"):
        create_console(world, settings)
    with pytest.raises(InvalidInput, match="expected 10 to"):
        store_password(settings.data_dir, "short")
    path = store_password(settings.data_dir, PASSWORD)
    assert path.stat().st_mode & 0o077 == 0
    assert create_console(world, settings).state.console.scope == "console"


async def test_a_proxy_with_tls_is_believed_only_as_configured(world: World) -> None:
    """The public address is the host and the origin, and cookies are for TLS alone."""
    public = world.settings.console.model_copy(update={"public_url": "https://bot.example.org"})
    settings = world.settings.model_copy(
        update={"console": public, "console_password": SecretStr(PASSWORD)}
    )
    app = create_console(world, settings)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://bot.example.org") as client:
        answer = await client.get("/login")
        assert "; Secure" in answer.headers["set-cookie"]
        other = await client.get("/login", headers={"host": "other.example.org"})
        assert other.status_code == 421
