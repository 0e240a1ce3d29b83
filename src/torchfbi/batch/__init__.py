"""A data set explained: Parquet files with a row for each image, resumable, here or on Ray.

>>> from torchfbi import batch
>>> batch.run("efficientnet-lite0", "photos/", "out")

It needs the extra ``batch``: pip install 'torchfbi[batch]'.
"""

from torchfbi.batch.run import Done, Step, run

__all__ = ["Done", "Step", "run"]
