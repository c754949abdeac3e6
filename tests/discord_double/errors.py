"""Refusals of the API, with Discord's numbers and words.

Each is a function so that a place that refuses reads as one line. The numbers are those of
Discord's list of JSON error codes. Knows no state.
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than success: the HTTP status and the body."""

    def __init__(
        self, status: int, code: int, message: str, *, errors: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status} ({code}): {message}")
        self.status = status
        self.body: dict[str, Any] = {"message": message, "code": code}
        if errors is not None:
            self.body["errors"] = errors


def unauthorized() -> ApiError:
    """Refuse a wrong or missing bot token."""
    return ApiError(401, 0, "401: Unauthorized")


def unknown(code: int, what: str) -> ApiError:
    """Refuse an id of a `what` that is not there."""
    return ApiError(404, code, f"Unknown {what}")


def missing_access() -> ApiError:
    """Refuse a place the bot cannot see."""
    return ApiError(403, 50001, "Missing Access")


def missing_permissions() -> ApiError:
    """Refuse an act the bot may not do where it is."""
    return ApiError(403, 50013, "Missing Permissions")


def invalid_form(field: str, code: str, message: str) -> ApiError:
    """Refuse a body for one field, named by its dotted path."""
    errors: dict[str, Any] = {"_errors": [{"code": code, "message": message}]}
    for part in reversed(field.split(".")):
        errors = {part: errors}
    return ApiError(400, 50035, "Invalid Form Body", errors=errors)


def too_long(field: str, limit: int) -> ApiError:
    """Refuse a text longer than `limit` characters."""
    return invalid_form(field, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def empty_message() -> ApiError:
    """Refuse a message with nothing in it."""
    return ApiError(400, 50006, "Cannot send an empty message")
