"""The algorithm as pure functions of arrays. Import the module you need: only `losses` needs torch, only `gae` and `fused` numba."""
