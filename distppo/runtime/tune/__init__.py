"""Hyperparameter search: many runs of `train` side by side, under a scheduler of Ray Tune's."""
