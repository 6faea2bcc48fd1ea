#!/usr/bin/env bash
# Makes docs/pictures/halfcheetah.gif for the README: six seconds of the median of ten episodes of a trained policy, under 2 MB.
# Usage: scripts/make_pictures.sh [CHECKPOINT]     (default: the best of the latest run; as in `launch.py evaluate CHECKPOINT`)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python} pictures=docs/pictures
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" launch.py evaluate "${1:-latest}" --record --format gif --size 320x240 --seconds 6 --output "$work"
mkdir -p "$pictures"
cp "$work"/*/median.gif "$pictures/halfcheetah.gif"
echo "wrote $pictures/halfcheetah.gif, $(wc -c <"$pictures/halfcheetah.gif") bytes"
