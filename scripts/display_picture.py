"""Draws the live display of a run as an SVG, as a terminal of 80 columns showed it when a part of the run was done.

python scripts/display_picture.py runs/my-run docs/pictures/display.svg --done 0.6
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group

from distppo.console.panel import panel
from distppo.console.view import RunView
from distppo.metrics import METRICS_FILE, read_metrics
from distppo.runtime.remarks import remarks
from distppo.runtime.watch import run_config

WIDTH = 80
# rich asks a server for a font; a picture in a README asks nobody for anything.
TEMPLATE = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


def main() -> None:
    """Reads the arguments and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("picture", type=Path, help="the SVG to write")
    parser.add_argument("--done", type=float, default=0.6, help="part of the run that the display knows of (default: 0.6)")
    arguments = parser.parse_args()

    config, rows = run_config(arguments.run), read_metrics(arguments.run / METRICS_FILE)
    title = f"{config.env.id} -> runs/{arguments.run.name}"
    view = RunView(title, total=config.run.total_timesteps, initial=0, findings=remarks(config))
    for row in rows[: max(1, round(arguments.done * len(rows)))]:
        view.update(row)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Group(*panel(view, width=WIDTH, height=24)))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    drawn = console.export_svg(title="python launch.py train", code_format=TEMPLATE, unique_id="display")
    arguments.picture.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
