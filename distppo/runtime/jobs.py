"""Jobs on a Ray cluster through its Jobs API: submitted, followed, stopped. They run there, so this end may go away at any time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import aiohttp
import ray
import requests
from ray._raylet import Config  # type: ignore[attr-defined]  # a compiled module
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from distppo.config.suggest import did_you_mean, printable
from distppo.errors import ResourceError, UserError
from distppo.runtime.address import ANSWER_SECONDS, TOKEN_ADVICE, Address, reach
from distppo.runtime.job_request import RUN_KEY, Request

DASHBOARD_PORT = 8265
URL_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Where Ray's own `ray job` looks for the address, too."""
STOPPED = 143
"""Exit code of a job that was stopped, as that of a training which SIGTERM has ended."""
_POLL_SECONDS = 0.5
_LOST_SECONDS = 60.0
"""How long a cluster may be silent while its job is followed."""
_NO_AGENT = "No available agent to submit job"
"""What Ray's dashboard says of a job that it could take a moment later."""
_LISTED = 10
_LONGEST_REASON = 300
_ADVICE = "Is the cluster up (`ray status` on its head node), and this the address of its dashboard, port 8265 of the head node by default?"
_FAILURES = (ConnectionError, RuntimeError, ValueError, KeyError, OSError, requests.exceptions.RequestException, AuthenticationError)


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        status: SUCCEEDED, FAILED or STOPPED.
        code: to exit with.
        message: Ray's, where the job has failed before its command ran; else empty.
    """

    status: str
    code: int
    message: str


def dashboard_address(address: str | None) -> Address:
    """Returns the URL of the cluster's dashboard, which takes jobs.

    Args:
        address: URL, HOST or HOST:PORT; None takes what RAY_API_SERVER_ADDRESS names, else the dashboard of this machine.

    Raises:
        UserError: it is none.
    """
    named = address or os.environ.get(URL_VARIABLE) or "127.0.0.1"
    place = f"--address {address}" if address else URL_VARIABLE if os.environ.get(URL_VARIABLE) else "--address (default: this machine)"
    match = re.fullmatch(r"(?:(https?)://)?(\[[^\]]+\]|[^:/\s]+)(?::(\d{1,5}))?/?", named)
    if match is None:
        raise UserError(f"{place}  must be the dashboard's address, as in http://HOST:{DASHBOARD_PORT}, got {printable(named)}")
    default = 443 if match[1] == "https" else DASHBOARD_PORT
    return Address(f"{match[1] or 'http'}://{match[2]}:{match[3] or default}", place)


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of its dashboard, as `dashboard_address` returns it.

    Raises:
        ResourceError: nothing answers there, it is no Ray cluster, or it wants a token.
    """

    def __init__(self, address: Address) -> None:
        self._place = address.place
        host, _, port = address.value.partition("://")[2].rpartition(":")
        reach(host.strip("[]"), int(port), address.place, _ADVICE)
        Config.initialize("")  # Ray has read RAY_AUTH_MODE when it was imported, and does this itself where it changes it
        with self._answered(), _named(address.value):
            self._client = JobSubmissionClient(address.value)

    def require_same_versions(self) -> None:
        """Raises ResourceError if the cluster runs another Ray or Python than this process: what is submitted was tried with these."""
        with self._answered():
            answer = self._client._do_request("GET", "/api/v0/cluster_metadata", timeout=ANSWER_SECONDS)
            found = answer.json().get("data", {}) if answer.status_code == 200 else {}
        theirs = found.get("rayVersion"), ".".join(str(found.get("pythonVersion")).split(".")[:2])
        ours = ray.__version__, ".".join(platform.python_version_tuple()[:2])
        if theirs[0] is not None and theirs != ours:
            raise ResourceError(
                f"{self._place}: the cluster runs Ray {theirs[0]} on Python {theirs[1]}, here are Ray {ours[0]} and Python {ours[1]}; "
                "start it with these (cluster.yaml and docker/ do), or submit with those"
            )

    def submit(self, request: Request) -> None:
        """Sends the sources and starts the job.

        Raises:
            UserError: the name is taken, or the sources are too large to be sent.
            ResourceError: the cluster does not take it.
        """
        taken = {job.submission_id: job.status.value for job in self._submitted()}.get(request.name)
        if taken is not None:
            raise UserError(f"--name {request.name}: the cluster has a job of this name already ({taken}); choose another")
        deadline = time.monotonic() + _LOST_SECONDS
        with self._answered():
            while True:
                try:
                    self._client.submit_job(
                        entrypoint=request.entrypoint,
                        submission_id=request.name,
                        runtime_env=request.runtime_env,
                        metadata=request.metadata,
                    )
                    return
                except RuntimeError as error:
                    # The dashboard of a cluster that has just been started answers before the process that takes jobs is there.
                    if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                        raise
                time.sleep(_POLL_SECONDS)

    def run_of(self, name: str) -> str | None:
        """Returns what `train --resume` goes on with after a job, if `submit` has noted that.

        Raises:
            UserError: there is no such job; the message lists what there is.
        """
        jobs = {str(job.submission_id): job for job in self._submitted()}
        if name not in jobs:
            listed = "".join(f"\n  {each}  {job.status.value}" for each, job in list(jobs.items())[:_LISTED])
            newest = f". The newest are:{listed}" if jobs else ""
            raise UserError(f"the cluster has no job {printable(name)}{did_you_mean(name, jobs)}{newest}")
        return (jobs[name].metadata or {}).get(RUN_KEY)

    def logs(self, name: str) -> str:
        """Returns what the job has printed so far."""
        with self._answered():
            return self._client.get_job_logs(name)

    def follow(self, name: str, write: Callable[[str], Any]) -> Outcome:
        """Hands on what the job prints until it has ended, from its beginning.

        Raises:
            ResourceError: the cluster has been silent for a minute. The job may go on.
        """
        log, heard = _Log(write), time.monotonic()
        while True:
            try:
                with self._answered():
                    asyncio.run(self._tail(name, log))
                if (outcome := self.outcome(name)) is not None:
                    return outcome
                heard = time.monotonic()
            except ResourceError:
                if time.monotonic() - heard > _LOST_SECONDS:
                    raise
            time.sleep(_POLL_SECONDS)

    def stop(self, name: str) -> Outcome:
        """Has the job end, which saves a checkpoint first, and returns when it has."""
        with self._answered():
            self._client.stop_job(name)
        while (outcome := self.outcome(name)) is None:
            time.sleep(_POLL_SECONDS)
        return outcome

    def outcome(self, name: str) -> Outcome | None:
        """Returns how a job has ended, or None while it has not."""
        with self._answered():
            job = self._client.get_job_info(name)
        if not job.status.is_terminal():
            return None
        if job.status is JobStatus.STOPPED:
            return Outcome("STOPPED", STOPPED, "")
        if job.status is JobStatus.SUCCEEDED:
            return Outcome("SUCCEEDED", 0, "")
        if job.driver_exit_code is None:
            return Outcome("FAILED", 1, " ".join((job.message or "").split())[:_LONGEST_REASON])
        code = job.driver_exit_code  # negative where a signal has ended it
        return Outcome("FAILED", code if code > 0 else 128 - code, "")

    async def _tail(self, name: str, log: _Log) -> None:
        """Reads a job's log from its beginning to its end, or to where the connection breaks."""
        log.rewind()
        async for text in self._client.tail_job_logs(name):
            log.read(text)

    def _submitted(self) -> list[JobDetails]:
        """Returns all jobs that have been submitted, the newest first."""
        with self._answered():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: -(job.start_time or 0))

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Makes one line of what the client raises, which has pages."""
        try:
            yield
        except UserError:
            raise
        except (AuthenticationError, aiohttp.ClientResponseError) as error:
            raise ResourceError(f"{self._place}: {_first_line(error)}. {TOKEN_ADVICE}") from error
        except (*_FAILURES, aiohttp.ClientError) as error:
            raise ResourceError(f"{self._place}: {_first_line(error)}") from error


class _Log:
    """A log that is read from its beginning whenever the connection was lost, and handed on once.

    Args:
        write: takes what is new.
    """

    def __init__(self, write: Callable[[str], Any]) -> None:
        self._write = write
        self._position = self._written = 0

    def rewind(self) -> None:
        """Notes that reading begins again."""
        self._position = 0

    def read(self, text: str) -> None:
        """Takes the next piece."""
        self._write(text[max(0, self._written - self._position) :])
        self._position += len(text)
        self._written = max(self._written, self._position)


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    """Has Ray's client take this address: it lets RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, count over the one that it is given."""
    before = os.environ.get(URL_VARIABLE)
    os.environ[URL_VARIABLE] = url
    try:
        yield
    finally:
        os.environ.pop(URL_VARIABLE)
        if before is not None:
            os.environ[URL_VARIABLE] = before


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return printable(lines[0])[:_LONGEST_REASON].rstrip(". ")
