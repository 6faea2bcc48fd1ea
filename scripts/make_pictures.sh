#!/usr/bin/env bash
# Makes the README's pictures under docs/pictures from a trained run: its display, its report, and six seconds of its median episode.
# Needs what `make setup` installs, and Chromium for the report. Usage: scripts/make_pictures.sh [RUN]     (default: the latest run)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python} pictures=docs/pictures run=${1:-latest}
if [ "$run" = latest ]; then
  run=$("$python" -c 'from distppo.runtime.run_directory import find_run; print(find_run("latest"))')
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$pictures"

"$python" scripts/display_picture.py "$run" "$pictures/display.svg"
"$python" launch.py evaluate "$run" --record --analyze-value --episodes 10
"$python" launch.py report "$run" --output "$work/report.html"
"$python" tests/headless_browser.py "$work/report.html" "$pictures/report.png" --width 1200 --height 1500
"$python" launch.py evaluate "$run" --record --format gif --size 320x240 --seconds 6 --output "$work/gif"
cp "$work"/gif/*/median.gif "$pictures/halfcheetah.gif"
ls -l "$pictures"
