"""How jobs are handed to a cluster's dashboard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from distppo.errors import ResourceError
from distppo.runtime import jobs as jobs_module
from distppo.runtime.job_request import Request
from distppo.runtime.jobs import Jobs


def handed_over(monkeypatch: pytest.MonkeyPatch, *, refusals: int, reason: str) -> int:
    """Submits to a dashboard that refuses so often, with a clock that moves ten seconds at every wait; returns the attempts."""
    clock, attempts = [0.0], []

    def submit_job(**_: Any) -> None:
        attempts.append(clock[0])
        if len(attempts) <= refusals:
            raise RuntimeError(reason)

    monkeypatch.setattr(
        jobs_module, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: clock.__setitem__(0, clock[0] + 10))
    )
    jobs = object.__new__(Jobs)
    jobs._client, jobs._place = SimpleNamespace(submit_job=submit_job, list_jobs=list), "--address there"  # type: ignore[assignment]
    jobs.submit(Request(*[None] * len(Request._fields)))  # type: ignore[arg-type]
    return len(attempts)


def test_a_cluster_that_has_just_started_gets_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dashboard answers before what takes jobs is there; not for ever, and no other reason is waited for."""
    early = "Request failed with status code 500: No available agent to submit job, please try again later."
    assert handed_over(monkeypatch, refusals=3, reason=early) == 4
    for refusals, reason in ((100, early), (1, "Request failed with status code 500: no")):
        with pytest.raises(ResourceError, match="--address there: Request failed with status code 500"):
            handed_over(monkeypatch, refusals=refusals, reason=reason)
