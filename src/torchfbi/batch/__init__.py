"""A data set explained: Parquet files with a row for each image, resumable, here or on Ray.

>>> from torchfbi import batch
>>> batch.run("efficientnet-lite0", "photos/", "out")
>>> batch.summarize("out").classes[0].strays

It needs the extra ``batch``: pip install 'torchfbi[batch]'.
"""

from torchfbi.batch.figures import draw, explanation
from torchfbi.batch.moved import Changes, Moved, changes
from torchfbi.batch.pages import overview_page, summary_page
from torchfbi.batch.run import Done, Progress, run
from torchfbi.batch.shortcuts import Verified
from torchfbi.batch.store import Store
from torchfbi.batch.summary import ClassSummary, Stray, Summary, summarize

__all__ = [
    "Changes",
    "ClassSummary",
    "Done",
    "Moved",
    "Progress",
    "Store",
    "Stray",
    "Summary",
    "Verified",
    "changes",
    "draw",
    "explanation",
    "overview_page",
    "run",
    "summarize",
    "summary_page",
]
