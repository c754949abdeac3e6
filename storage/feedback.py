"""Everything people say of replies, as one store: votes, reactions that stand for votes, review."""

from __future__ import annotations

from storage.reactions import ReactionStore
from storage.review import ReviewStore


class FeedbackStore(ReactionStore, ReviewStore):
    """The tables `feedback` and `reactions`; what training reads is inherited from SignalReader."""
