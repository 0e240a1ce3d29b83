"""Should this explanation be believed? It is put to the test on the image itself.

Needs a network that can be asked, an image, and a map whose order ranks the pixels; it knows no
way of explaining, so that any method's map can be tested.
"""

from __future__ import annotations

from torchfbi.verification.binomial import clopper_pearson
from torchfbi.verification.examine import examine
from torchfbi.verification.moves import Again, noisy, shifted
from torchfbi.verification.occlusion import Occlusion, Predict
from torchfbi.verification.rival import compared
from torchfbi.verification.stability import Stability
from torchfbi.verification.verdict import PARTS, Part, Rival, Ruling, Verdict

__all__ = [
    "PARTS",
    "Again",
    "Occlusion",
    "Part",
    "Predict",
    "Rival",
    "Ruling",
    "Stability",
    "Verdict",
    "clopper_pearson",
    "compared",
    "examine",
    "noisy",
    "shifted",
]
