"""The OpenAI-compatible HTTP API: a face over the services, for any client that speaks it."""
