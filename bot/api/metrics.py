"""The API's figures for Prometheus, in a registry of their own.

What grows is counted as it happens and begins at 0 with the process; what stands in the engine and
the database is read when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.generation import EngineStats
from core.records import ACTIVE_RUN_STATES, Reply

__all__ = ["CONTENT_TYPE", "Counted", "Metrics"]
_FIRST_TOKEN_S = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_METHODS = ("GET", "POST", "DELETE")
_VOTES = ("up", "down", "correction", "preference", "regenerate")


class Metrics:
    """One application's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter(
            "requests", "Requests answered.", ("route", "method", "status")
        )
        self._tokens = self._counter("tokens", "Tokens of replies through the API.", ("kind",))
        self._replies = self._counter("replies", "Replies through the API.", ("finish_reason",))
        self._first_token = Histogram(
            "thumbtune_first_token_seconds",
            "From a reply's request to its first token.",
            registry=self.registry,
            buckets=_FIRST_TOKEN_S,
        )
        self._waiting = self._gauge("queue_length", "Replies waiting for a place in the engine.")
        self._running = self._gauge("running_replies", "Replies being written.")
        self._resident = self._gauge("adapters_resident", "Adapters in the engine's memory.")
        self._written = self._gauge("engine_tokens", "Tokens written since the start, by any face.")
        self._votes = self._gauge("votes", "Feedback stored, by kind.", ("kind",))
        self._training = self._gauge("training_runs", "Active training runs, by state.", ("state",))

    def count_request(self, route: str, method: str, status: int) -> None:
        """Count an answered request."""
        self._requests.labels(route, method, str(status)).inc()

    def count_reply(self, reply: Reply) -> None:
        """Count a reply that has ended."""
        self._replies.labels(reply.finish_reason or "error").inc()
        self._tokens.labels("prompt").inc(reply.prompt_tokens)
        self._tokens.labels("completion").inc(reply.tokens)
        if reply.first_token_s is not None:
            self._first_token.observe(reply.first_token_s)

    def text(self, engine: EngineStats, votes: Mapping[str, Any], training: Sequence[str]) -> bytes:
        """Return everything in Prometheus's text format.

        `votes` are counts by kind, `training` the states of the active runs.
        """
        self._waiting.set(engine.waiting)
        self._running.set(engine.active)
        self._resident.set(len(engine.adapters))
        self._written.set(engine.tokens_total)
        for kind in _VOTES:
            self._votes.labels(kind).set(votes[kind])
        for state in ACTIVE_RUN_STATES:
            self._training.labels(state).set(training.count(state))
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"thumbtune_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"thumbtune_{name}", about, labels, registry=self.registry)


class Counted:
    """A middleware that counts requests by route; what no route answers counts as `other`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count its answer as it begins."""

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                known = route != "other" and scope["method"] in _METHODS
                method = scope["method"] if known else "other"
                self._metrics.count_request(route, method, message["status"])
            await send(message)

        await self._app(scope, receive, noted if scope["type"] == "http" else send)
