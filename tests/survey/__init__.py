"""Which architectures can be captured and explained, and why not: the table in the docs.

Nothing here needs trained weights: every network is examined with random ones.
"""

from survey.examine import Row, examine
from survey.names import family, representatives

__all__ = ["Row", "examine", "family", "representatives"]
