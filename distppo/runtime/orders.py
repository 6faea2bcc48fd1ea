"""What the pool keeps of its processes, of the environments' shares and of the work that is out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distppo.runtime.actors import Presence, Share, Standpoint
from distppo.runtime.attempts import Attempts


@dataclass(eq=False)
class Host:
    """An actor process.

    Attributes:
        name: for people.
        actor: its handle.
        arrival: reference to its presence; None once that is known.
        since: when it was asked for, monotonic seconds.
        outside: of its bundle, since that was on a node that is about to go.
        presence: once it is ready.
        reached: share -> the iteration that its environments in this process stand before.
    """

    name: str
    actor: Any
    arrival: Any
    since: float
    outside: bool = False
    presence: Presence | None = None
    reached: dict[int, int] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it can work."""
        return self.presence is not None


@dataclass(eq=False)
class Seat:
    """A share of the environments, and the process that has them.

    Attributes:
        share: which environments.
        standpoint: of theirs, after the last fragment that was delivered.
        bundle: of the run's placement group, for its process; None: that comes when there is room, and until then others do its work.
        adopter: whose process does its work while it has none and needs none.
        host: their process, starting or ready; None between two attempts.
        attempts: that failed since then.
        next_start: when the next process may be started, monotonic seconds.
        failed_at: when the trouble began; None: there is none.
        away: whether it was told that others do its work, since it last had a process.
        error: why no more can be had of it.
    """

    share: Share
    standpoint: Standpoint
    bundle: int | None
    adopter: Host | None = None
    host: Host | None = None
    attempts: Attempts = field(default_factory=Attempts)
    next_start: float = 0.0
    failed_at: float | None = None
    away: bool = False
    error: Exception | None = None

    @property
    def ready(self) -> bool:
        """Whether it has a process that can work."""
        return self.host is not None and self.host.ready


@dataclass(eq=False)
class Order:
    """A fragment, or a share of an evaluation, that a worker is to deliver.

    Attributes:
        seat: whose.
        snapshot: reference to the policy.
        iteration: of the fragment.
        standpoint: of the environments before it.
        episodes: to play instead of collecting; None: a fragment.
        host: the process that works on it.
        handed_at: when it got it, monotonic seconds.
        not_before: when it may be handed out again, after a process did not answer.
        answer: reference to what tells that it is done.
        rollout: reference to the fragment; None for an evaluation.
        value: the answer, once it is there.
        error: why it never will be.
    """

    seat: Seat
    snapshot: Any
    iteration: int
    standpoint: Standpoint
    episodes: list[int] | None = None
    host: Host | None = None
    handed_at: float = 0.0
    not_before: float = 0.0
    answer: Any = None
    rollout: Any = None
    value: Any = None
    error: Exception | None = None

    @property
    def open(self) -> bool:
        """Whether it is still to be done."""
        return self.value is None and self.error is None
