"""How much a test tries: in CI a part, in full by ``make test-full``."""

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

IS_FULL = bool(os.environ.get("KPMS_ZARR_FULL"))


def examples(number: int) -> int:
    """Examples that Hypothesis draws: so many in a full run, a fifth of them else."""
    return number if IS_FULL else max(5, number // 5)


def some(items: Sequence[T], number: int) -> Sequence[T]:
    """All items in a full run, else so many or a few more, evenly spread."""
    return items if IS_FULL else items[:: max(1, len(items) // number)]
