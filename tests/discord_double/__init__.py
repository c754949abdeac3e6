"""A double of Discord on loopback: gateway, REST API and people, for the real client to talk to."""

from tests.discord_double.server import TOKEN, Double, Remote, double_in_thread

__all__ = ["TOKEN", "Double", "Remote", "double_in_thread"]
