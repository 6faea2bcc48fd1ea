"""Where an actor's output goes: into a file of its own in the run directory, where its machine has that, else where Ray puts it."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

import ray

from distppo.files import without_links
from distppo.runtime.run_directory import LOCK_NAME, LOGS_DIRECTORY


class RunLogs(NamedTuple):
    """The logs of a run, as the driver sees them.

    Attributes:
        directory: of the run.
        mark: what its lock file holds, by which another machine knows the same folder from one that only has its name.
    """

    directory: str
    mark: str

    @classmethod
    def of(cls, directory: Path) -> RunLogs:
        """Returns those of a run directory that this process trains in."""
        return cls(str(directory.resolve()), (directory / LOCK_NAME).read_text())

    def file(self, role: str) -> Path:
        """Returns the file of an actor; those that take its place go on in it."""
        return Path(self.directory, LOGS_DIRECTORY, f"{role}.log")

    def redirect(self, role: str) -> str:
        """Has what this process writes, and what the libraries in it do, appended to its file; returns where the output is."""
        context = ray.get_runtime_context()
        node = f"node {context.get_node_id()[:12]} ({ray.util.get_node_ip_address()})"
        try:
            if Path(self.directory, LOCK_NAME).read_text() != self.mark:
                raise FileNotFoundError
            path = self.file(role)
            path.parent.mkdir(exist_ok=True)
            output = without_links(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError:
            return f"{node}: {ray._private.worker.global_worker.get_err_file_path()}"
        os.write(output, f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {role}, process {os.getpid()} on {node}\n".encode())
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        return str(path)

    def note(self, role: str, place: str) -> None:
        """Writes into an actor's file where its output is instead, if that is elsewhere."""
        path = self.file(role)
        if place != str(path):
            with contextlib.suppress(OSError):
                path.parent.mkdir(exist_ok=True)
                with open(path, "a", opener=without_links) as file:
                    file.write(f"the output of {role} is on {place}\n")
