"""The learner: rollouts in, snapshot and metrics out."""

from distppo.learner.learner import Learner

__all__ = ["Learner"]
