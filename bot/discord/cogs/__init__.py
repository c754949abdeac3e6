"""The features of the Discord face, a module each, in the order they are loaded."""

from __future__ import annotations

from bot.discord.cogs.adapters import AdaptersCog
from bot.discord.cogs.arena import ArenaCog
from bot.discord.cogs.canary import CanaryCog
from bot.discord.cogs.chat import ChatCog
from bot.discord.cogs.deletion import DeletionCog
from bot.discord.cogs.feedback import FeedbackCog
from bot.discord.cogs.privacy import PrivacyCog
from bot.discord.cogs.reactions import ReactionsCog
from bot.discord.cogs.settings import SettingsCog
from bot.discord.cogs.training import TrainingCog
from bot.discord.cogs.voting import VotingCog

COGS = (
    ChatCog,
    VotingCog,
    ReactionsCog,
    ArenaCog,
    TrainingCog,
    AdaptersCog,
    CanaryCog,
    FeedbackCog,
    SettingsCog,
    PrivacyCog,
    DeletionCog,
)
