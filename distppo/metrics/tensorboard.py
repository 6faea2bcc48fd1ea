"""Scalars for TensorBoard, written through tensorboardX's file format without its background thread.

That thread dies on a full disk, after which its queue fills up and training hangs; written directly, the error arrives here.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class EventFile:
    """TensorBoard events in `directory`, a new file for each process; created with the first scalars.

    Args:
        directory: of the events.
        after: env steps; what earlier files have above it is hidden by TensorBoard. None hides nothing.
    """

    def __init__(self, directory: Path, *, after: int | None) -> None:
        self._directory = directory
        self._after = after
        self._file: Any = None
        # Takes seconds, since it imports torch: while the run starts and not within its first iteration.
        import tensorboardX.event_file_writer  # noqa: F401

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes finite numbers at `step` (env steps); they are on the disk when this returns.

        Raises:
            OSError: The disk refused. The next call starts a new file, since TensorBoard reads none past a damaged record.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()])
        try:
            if self._file is None:
                self._open()
            self._file.write_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._file.flush()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._file = None

    def _open(self) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._directory.mkdir(parents=True, exist_ok=True)
        # The name has the second in it; the suffix keeps a file of the same second from being overwritten.
        self._file = EventsWriter(str(self._directory / "events"), f".{uuid.uuid4().hex[:8]}")
        if self._after is not None:
            self._file.write_event(Event(wall_time=time.time(), step=self._after + 1, session_log=SessionLog(status=SessionLog.START)))
