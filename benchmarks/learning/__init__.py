"""How much better replies get per vote, and what cannot be got past the gate.

Simulated communities (tastes, people) vote on the base's own replies to real prompts; the product's
own path makes adapters of the votes; replies to unseen prompts are judged by the taste's rule.
"""
