"""An overflow on the way back is an error, not an empty support."""

from __future__ import annotations

import math

from torch import Tensor

from torchfbi.errors import NonFiniteError


def finite(signal: Tensor) -> Tensor:
    """The tensor as it is.

    Raises:
        NonFiniteError: a signal or its product with an activation is beyond the dtype's range.
    """
    if not signal.numel():
        return signal
    # Twenty times as fast as a look at every entry.
    if not all(math.isfinite(bound.item()) for bound in signal.aminmax()):
        raise NonFiniteError(
            f"on its way back the signal exceeds what {signal.dtype} holds: explain in a "
            "wider dtype, for example model.double()."
        )
    return signal
