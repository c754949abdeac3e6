"""One run on a Ray cluster: the bridge beside the bot, the supervisor and the worker over there.

Only these modules import Ray.
"""
