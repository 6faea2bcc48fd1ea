"""What a person sees while a run goes on: a live display on a terminal, one plain line an iteration elsewhere."""

from distppo.console.display import Display, PlainDisplay, make_display
from distppo.console.text import format_count, format_duration, sparkline

__all__ = ["Display", "PlainDisplay", "format_count", "format_duration", "make_display", "sparkline"]
