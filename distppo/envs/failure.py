"""What to say when an environment's own code raises."""

from __future__ import annotations

import traceback

FRAMES = 3


def failure_text(error: BaseException) -> str:
    """Returns the end of the traceback, where the reason is, indented: the last frames below the one that caught it, and the exception."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = traceback.format_list(frames[1:][-FRAMES:] or frames)
    lines = "".join([*shown, *traceback.format_exception_only(error)]).splitlines()
    return "\n".join(f"  {line}" for line in lines)
