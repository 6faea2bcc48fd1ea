"""Several learners that act as one: how they find each other, and how they add up what each has computed of a minibatch."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed
from torch import Tensor

from distppo.errors import PeerLostError


class Place(NamedTuple):
    """Where the learners of a group meet.

    Attributes:
        host: address of learner 0's machine.
        port: that it listens on.
    """

    host: str
    port: int


class Meeting:
    """A port of learner 0's, opened before anybody else is told of it.

    Args:
        host: address to listen on; nobody can come by another.
    """

    def __init__(self, host: str) -> None:
        self._socket = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.place = Place(host, self._socket.getsockname()[1])

    def take(self) -> int:
        """Gives the open port away, as a file descriptor."""
        return self._socket.detach()


class LearnerGroup:
    """One learner's connection to all others. Every method that sends waits for all of them, which must call it at the same point.

    Sums are taken in the same order everywhere, so that all learners get the same bits, and a repetition gets them again.

    Args:
        rank: of this learner, from 0.
        size: learners in the group.
        place: where they meet.
        meeting: what learner 0 has opened there; None for the others.
        host: address of this learner's own machine, to which the others connect.
        seconds: to wait for the others, until `patience` says otherwise.
        device: on which gradients lie; on a GPU they are added up by NCCL, everything else by Gloo.

    Raises:
        PeerLostError: not all of them came.

    Attributes:
        waited: seconds spent in sums so far, those of waiting for the others among them.
    """

    def __init__(
        self, rank: int, size: int, place: Place, meeting: Meeting | None, *, host: str, seconds: float, device: torch.device
    ) -> None:
        self.rank, self.size, self.waited = rank, size, 0.0
        self.patience(seconds)
        limit = timedelta(seconds=seconds)
        descriptor = None if meeting is None else meeting.take()
        try:
            store = torch.distributed.TCPStore(
                *place, None, meeting is not None, limit, wait_for_workers=False, master_listen_fd=descriptor
            )
            self._on_cpu: Any = _gloo(torch.distributed.PrefixStore("gloo", store), rank, size, host, limit)
            self._on_gpu: Any = None
            if device.type == "cuda":
                torch.cuda.set_device(device)
                self._on_gpu = _nccl(torch.distributed.PrefixStore("nccl", store), rank, size, limit)
            self.add(torch.zeros(1, device=device))  # nobody leaves before all have come
        except (RuntimeError, OSError) as error:
            where = f"{place.host}:{place.port}"
            raise PeerLostError(f"learner {rank} of {size} did not find the others at {where}: {_first(error)}") from error

    def patience(self, seconds: float) -> None:
        """Waits so long for the others from now on."""
        self._options = torch.distributed.AllreduceOptions()
        self._options.timeout = timedelta(seconds=seconds)

    def share(self, samples: int) -> slice:
        """Returns which of a minibatch's samples are this learner's; the size divides them."""
        each = samples // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def add(self, tensor: Tensor) -> None:
        """Makes the tensor, in place, the sum of those of all learners.

        Raises:
            PeerLostError: another learner is gone, or has not come here in time.
        """
        began = time.perf_counter()
        group = self._on_cpu if tensor.device.type == "cpu" else self._on_gpu
        try:
            group.allreduce([tensor], self._options).wait()
        except RuntimeError as error:
            raise PeerLostError(f"learner {self.rank} of {self.size} waited for another that is gone or hangs: {_first(error)}") from error
        self.waited += time.perf_counter() - began


def _gloo(store: Any, rank: int, size: int, host: str, limit: timedelta) -> Any:
    """Connects over the one address, where torch would listen on whatever the machine's name stands for."""
    kind: Any = torch.distributed.ProcessGroupGloo
    options = kind._Options()
    options._devices = [kind.create_device(hostname=host)]
    options._timeout = limit
    options._threads = 1
    return kind(store, rank, size, options)


def _nccl(store: Any, rank: int, size: int, limit: timedelta) -> Any:
    kind: Any = torch.distributed.ProcessGroupNCCL
    options = kind.Options()
    options._timeout = limit
    return kind(store, rank, size, options)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
