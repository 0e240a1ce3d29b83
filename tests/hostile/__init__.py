"""Files made to harm whoever opens them: as generators, each with the refusal it must meet.

``python -m hostile`` (with ``tests`` on the path) opens every one of them in a process of its own,
whose memory and time are limited, and prints what happened.
"""

from hostile import archives, networks, pictures, programs, texts, videos, weights
from hostile.case import CASES, Case, Outcome

__all__ = [
    "CASES",
    "Case",
    "Outcome",
    "archives",
    "networks",
    "pictures",
    "programs",
    "texts",
    "videos",
    "weights",
]
