"""Rate limits: fixed windows for each method, route and major parameter, and one for all.

Invariant: every answer of a limited route carries the headers that tell its client how to avoid a
429; a client that obeys them earns none. Windows run on real time. Knows no bodies but the 429's
own.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from tests.discord_double.patterns import major_parameter, matches
from tests.discord_double.records import Json

Headers = dict[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """`limit` requests in `per_s` seconds on the routes that `method` and `pattern` name.

    `scope` is what a 429 says: "user" or "shared" (shared ones do not count against the bot). A
    hidden rule is one that no header announces, as Discord's limit on edits of old messages is.
    """

    method: str
    pattern: str
    limit: int
    per_s: float
    scope: str = "user"
    hidden: bool = False


@dataclass(slots=True)
class Window:
    """What is used of a limit until `ends_at` (monotonic seconds)."""

    ends_at: float
    used: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Headers for the answer, and the 429's body if the request is one too many."""

    headers: Headers
    refusal: Json | None = None


EVERY_ROUTE = Rule("*", "", limit=1000, per_s=1.0)
"""What holds where a test sets nothing: headers are there, and nobody waits."""


class Limits:
    """Counts requests against rules; the rule set last wins."""

    def __init__(self) -> None:
        self.earned_429 = 0
        self._rules: list[Rule] = []
        self._global: Rule | None = None
        self._windows: dict[tuple[Rule, str], Window] = {}

    def add(self, rule: Rule) -> None:
        """Limit the routes that `rule` names from now on."""
        self._rules.insert(0, rule)

    def limit_all(self, limit: int, *, per_s: float) -> None:
        """Limit all requests but answers to interactions together."""
        self._global = Rule("*", "global", limit, per_s, scope="global")

    def lift(self) -> None:
        """Forget every rule and what was used."""
        self._rules.clear()
        self._windows.clear()
        self._global = None

    def take(self, method: str, template: str, path: str) -> Verdict:
        """Count one request on the route written as `template` and say what its answer carries."""
        answering = path.startswith(("/interactions/", "/webhooks/"))
        if self._global is not None and not answering:
            wait = self._overdrawn(self._global, "")
            if wait is not None:
                return self._refuse(self._global, wait, {})
        rules = [rule for rule in self._rules if matches(rule.method, rule.pattern, method, path)]
        announced = next((rule for rule in rules if not rule.hidden), EVERY_ROUTE)
        major = f"{method} {template} {major_parameter(path)}"
        wait = self._overdrawn(announced, major)
        headers = self._headers(announced, major, f"{method} {template}")
        if wait is not None:
            return self._refuse(announced, wait, headers)
        for rule in rules:
            if rule.hidden and (wait := self._overdrawn(rule, major)) is not None:
                return self._refuse(rule, wait, headers)
        return Verdict(headers)

    def refuse(self, *, retry_after_s: float, scope: str = "user") -> Verdict:
        """A 429 no rule asked for."""
        return self._refuse(Rule("*", "", 1, retry_after_s, scope), retry_after_s, {})

    def _overdrawn(self, rule: Rule, major: str) -> float | None:
        """Use one of `rule`; the seconds to wait if there was none left."""
        now = time.monotonic()
        window = self._windows.get((rule, major))
        if window is None or window.ends_at <= now:
            window = self._windows[rule, major] = Window(now + rule.per_s)
        if window.used >= rule.limit:
            return window.ends_at - now
        window.used += 1
        return None

    def _headers(self, rule: Rule, major: str, route: str) -> Headers:
        window = self._windows[rule, major]
        left_s = max(0.0, window.ends_at - time.monotonic())
        return {
            "X-RateLimit-Limit": str(rule.limit),
            "X-RateLimit-Remaining": str(rule.limit - window.used),
            "X-RateLimit-Reset": f"{time.time() + left_s:.3f}",
            "X-RateLimit-Reset-After": f"{left_s:.3f}",
            "X-RateLimit-Bucket": hashlib.sha256(route.encode()).hexdigest()[:32],
        }

    def _refuse(self, rule: Rule, wait_s: float, headers: Headers) -> Verdict:
        everywhere = rule.scope == "global"
        if rule.scope != "shared":
            self.earned_429 += 1
        told = headers | {"Retry-After": str(int(wait_s) + 1), "X-RateLimit-Scope": rule.scope}
        if everywhere:
            told["X-RateLimit-Global"] = "true"
        message = "You are being rate limited."
        # the window's end must have passed when a client that slept this long comes back
        retry_after = round(wait_s + 0.005, 3)
        return Verdict(told, {"message": message, "retry_after": retry_after, "global": everywhere})
