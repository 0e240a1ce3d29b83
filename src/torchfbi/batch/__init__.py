"""A data set explained: Parquet files with a row for each image, resumable, here or on Ray.

>>> from torchfbi import batch
>>> batch.run("efficientnet-lite0", "photos/", "out")
>>> batch.summarize("out").classes[0].strays

It needs the extra ``batch``: pip install 'torchfbi[batch]'.
"""

from torchfbi.batch.figures import draw, explanation
from torchfbi.batch.pages import contact_sheets, summary_page
from torchfbi.batch.run import Done, Step, run
from torchfbi.batch.shortcuts import Verified
from torchfbi.batch.store import Store
from torchfbi.batch.summary import ClassSummary, Stray, Summary, summarize

__all__ = [
    "ClassSummary",
    "Done",
    "Step",
    "Store",
    "Stray",
    "Summary",
    "Verified",
    "contact_sheets",
    "draw",
    "explanation",
    "run",
    "summarize",
    "summary_page",
]
