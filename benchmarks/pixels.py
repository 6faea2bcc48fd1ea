"""Whether a CNN learns: InvertedPendulum from rendered pixels through Ray, three seeds, scored afterwards.

    .venv/bin/python benchmarks/pixels.py                about ten minutes on two cores; rendering needs EGL or OSMesa
    .venv/bin/python benchmarks/pixels.py --seeds 0      one seed

The recipe is configs/inverted_pendulum_pixels.yaml as it stands; scores are made as in classic_control.py, over 20 episodes. The exit
code is 1 unless every seed ends at ten times the return of its untrained network or more. Curves and scores go to benchmarks/results.
"""

from __future__ import annotations

import sys

from classic_control import parse_arguments, score_recipe, write_report

RECIPE = "inverted_pendulum_pixels"
FACTOR = 10.0


def main() -> int:
    arguments = parse_arguments(__doc__ or "", (RECIPE,), episodes=20)
    seeds = score_recipe(RECIPE, arguments)
    write_report("pixels", {RECIPE: seeds}, arguments)
    return 0 if all(seed["return_mean"] >= FACTOR * seed["return_untrained"] for seed in seeds) else 1


if __name__ == "__main__":
    sys.exit(main())
