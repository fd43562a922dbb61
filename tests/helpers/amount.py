"""How much a test tries: in CI a part, in full by ``make test-full``."""

import os

IS_FULL = bool(os.environ.get("KPMS_ZARR_FULL"))


def examples(number: int) -> int:
    """Examples that Hypothesis draws: so many in a full run, a third of them else."""
    return number if IS_FULL else max(5, number // 3)
