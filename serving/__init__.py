"""The base model, the batching engine, adapters in memory: torch, no Discord and no SQL."""
