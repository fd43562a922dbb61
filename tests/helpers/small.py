"""The small fit of all tests that are not about sizes: what is compiled for one serves the others.

A full sweep takes many seconds to compile, once for each shape of its tables and tiles.
"""

from kpms_zarr.compute.config import FitConfig

N_KEYPOINTS = 6
SMALL = FitConfig(
    ar_sweeps=3, sweeps=4, n_states=10, latent_dim=3, segment_frames=64, tile_frames=512
)
