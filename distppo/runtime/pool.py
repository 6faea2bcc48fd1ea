"""The rollout workers: gives them work, ends those that hang, replaces those that die, and has their work done meanwhile.

`collect` is a pure function of (snapshot, iteration, where the environments stood), and the driver knows where they stood before
every fragment. So any process can collect any fragment, at any time and as often as it takes, and the bits are the same.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import ray

from distppo.config import Config
from distppo.errors import ResourceError, UserError
from distppo.plugins import search_path
from distppo.runtime import cluster, nodes
from distppo.runtime.actors import Gone, Lost, Share, Standpoint, Unreachable, WorkerActor, end, is_there, values_of
from distppo.runtime.deadline import Deadline
from distppo.runtime.faults import Crash, FaultLog
from distppo.runtime.orders import Host, Order, Seat
from distppo.runtime.output import RunLogs
from distppo.runtime.placement import LEARNER_BUNDLE, Placement
from distppo.runtime.signals import StopRequested, StopSignal
from distppo.types import EnvSpec, FaultEvent

POLL_SECONDS = 0.2
"""How often a wait looks around."""
TAKEOVER_SECONDS = 5.0
"""For which work waits for a process of its own, before one that has nothing to do does it."""
CLOSE_SECONDS = 3.0
"""That processes have, all together, to close their environments before they are killed."""


class WorkerPool:
    """A process for every share of the environments, as long as there is any way to have one.

    Args:
        config: of the run.
        env: its environment's spec, which that of every process must equal.
        shares: of the environments.
        standpoints: of the environments of each, before the first fragment.
        placement: where they go.
        reserved: workers that have a bundle there; the others come when there is room, and until then these do their work.
        logs: for their output; None leaves it to Ray.
        faults: told what happens.
        stop: where it has been asked for, nothing is replaced any more.

    Attributes:
        seats: one a share, in order.
    """

    def __init__(
        self,
        config: Config,
        env: EnvSpec,
        shares: Sequence[Share],
        standpoints: Sequence[Standpoint],
        *,
        placement: Placement,
        reserved: int,
        logs: RunLogs | None,
        faults: FaultLog,
        stop: StopSignal,
    ) -> None:
        self._config, self._env, self._policy, self._faults, self._stop = config, env, config.fault, faults, stop
        self._actor_class: Any = ray.remote(WorkerActor)
        self._logs = logs
        self._placement, self._elastic = placement, reserved < len(shares)
        self._deadline = Deadline(config.fault.collect_timeout)
        self._node = ray.get_runtime_context().get_node_id()
        self._orders: list[Order] = []
        self._leaving: list[Host] = []
        self.seats = [
            Seat(share, standpoint, bundle=LEARNER_BUNDLE + 1 + share.number if share.number < reserved else None)
            for share, standpoint in zip(shares, standpoints, strict=True)
        ]
        for seat in self.seats:
            self._start(seat)

    @property
    def missing(self) -> int:
        """Workers with a bundle of their own whose process is not ready."""
        return sum(not seat.ready for seat in self.seats if seat.bundle is not None)

    @property
    def present(self) -> int:
        """Processes that can collect."""
        return sum(seat.ready for seat in self.seats)

    def check(self) -> None:
        """Raises what keeps a share from ever being collected again."""
        for seat in self.seats:
            if seat.error is not None:
                raise seat.error

    def collect(self, snapshot: Any, iteration: int) -> list[Order]:
        """Orders an iteration's fragments: one call a share; the snapshot travels as an argument, once a node."""
        self._share_out()
        return self._ordered([Order(seat, snapshot, iteration, seat.standpoint) for seat in self.seats])

    def evaluate(self, snapshot: Any, episodes: Sequence[list[int]]) -> list[Order]:
        """Orders evaluation episodes, a list a share."""
        pairs = zip(self.seats, episodes, strict=True)
        return self._ordered([Order(seat, snapshot, seat.standpoint.iteration, seat.standpoint, share) for seat, share in pairs if share])

    def collect_again(self, orders: Sequence[Order], why: str) -> bool:
        """Reopens the fragments that went with their nodes; returns whether there are any."""
        alive = nodes.living()
        lost = [order for order in orders if order.host and order.host.presence and order.host.presence.node not in alive]
        for order in lost:
            self._faults.record("fragment_lost", order.seat.share.name, why, "collected again from where its environments stood")
            order.value = order.host = None
            order.seat.failed_at = order.seat.failed_at or time.monotonic()
        self._ordered(lost)
        return bool(lost)

    def advance(self, also: Sequence[Any] = ()) -> bool:
        """Waits up to POLL_SECONDS for answers, and sees to whatever keeps them from coming.

        Args:
            also: references of somebody else's, to wait for instead.

        Returns:
            Whether all that it waited for is there.
        """
        self._start_due()
        self._hand_out()
        answers = [order.answer for order in self._orders if order.host is not None]
        arrivals = [seat.host.arrival for seat in self.seats if seat.host is not None and not seat.ready]
        watched = [*also] or [*answers, *arrivals]
        # Where all is well one call waits for all; otherwise the first news may ask for something to be done.
        calm = bool(also) or not arrivals
        there: list[Any] = []
        if watched:
            there, _ = ray.wait(watched, num_returns=len(watched) if calm else 1, timeout=POLL_SECONDS, fetch_local=False)
        else:
            time.sleep(POLL_SECONDS)
        if also and answers:
            answered, _ = ray.wait(answers, num_returns=len(answers), timeout=0, fetch_local=False)
        else:
            answered = there
        self._welcome()
        self._take_answers(set(answered))
        self._end_overdue()
        self._give_up_without_capacity()
        return len(there) == len(watched)

    def leave(self, draining: frozenset[str]) -> int:
        """Starts a process elsewhere for each on these nodes, which gets no new work; returns how many. What they do is let finish."""
        moving = [seat for seat in self.seats if seat.host and seat.host.presence and seat.host.presence.node in draining]
        for seat in moving:
            assert seat.host is not None
            self._leaving.append(seat.host)
            self._start(seat)
        return len(moving)

    def make_room(self, bundle: int) -> int:
        """Ends a process, for the learner to have its CPU, if another is there that can do its work.

        Args:
            bundle: of the learner's, in which it cannot start; the process gets it instead.

        Returns:
            The bundle in which the learner can.
        """
        ready = [seat for seat in self.seats if seat.ready]
        if len(ready) < 2:
            return bundle
        seat = max(ready, key=lambda seat: (self._placement.usable(seat.bundle) and seat.bundle is not None, seat.share.number))
        assert seat.host is not None
        host, seat.host = seat.host, None
        if seat.bundle is not None:
            seat.bundle, bundle = bundle, seat.bundle
        seat.next_start = time.monotonic() + TAKEOVER_SECONDS
        self._faults.record("worker_away", host.name, "the learner needs a CPU", "its process was ended; others do its work")
        self._part_with([host])
        self._take_back(host)
        return bundle

    def close(self) -> None:
        """Ends every process."""
        self._part_with([*self._leaving, *(seat.host for seat in self.seats if seat.host is not None)])
        self._leaving, self._orders = [], []

    def _ordered(self, orders: list[Order]) -> list[Order]:
        for order in orders:
            order.error = order.seat.error
        self._orders += [order for order in orders if order.open]
        self._hand_out()
        return orders

    def _part_with(self, hosts: Sequence[Host]) -> None:
        """Kills processes; those that are ready have their environments closed before, if that is done within CLOSE_SECONDS."""
        silent: dict[Any, Host] = {}
        with contextlib.suppress(Exception):  # a cluster that has gone took its actors with it
            silent = {host.actor.close.remote(): host for host in hosts if host.ready}
            deadline = time.monotonic() + CLOSE_SECONDS
            while silent and time.monotonic() < deadline:  # short waits, so that a second signal ends the run at once
                closed, _ = ray.wait([*silent], num_returns=len(silent), timeout=POLL_SECONDS)
                for answer in closed:
                    del silent[answer]
                    with contextlib.suppress(Exception):  # dead already, or an environment that cannot be closed
                        ray.get(answer)
        for host in hosts:
            end(host.actor, self._pid_here(host) if host in silent.values() else None)

    def _pid_here(self, host: Host) -> int | None:
        """Returns the id of a process on this machine; None of one elsewhere, or that has not been ready."""
        return host.presence.pid if host.presence is not None and host.presence.node == self._node else None

    def _start(self, seat: Seat) -> None:
        outside = not self._placement.usable(seat.bundle)
        role = f"worker-{seat.share.number}"
        options = self._placement.options(role, None if outside else seat.bundle)
        actor = self._actor_class.options(num_cpus=cluster.WORKER_CPUS, **options).remote(self._config, search_path(), role, self._logs)
        seat.host = Host(seat.share.name, actor, actor.ready.remote(seat.share, seat.standpoint), time.monotonic(), outside)
        seat.host.reached[seat.share.number] = seat.standpoint.iteration

    def _start_due(self) -> None:
        for seat in self.seats:
            host = seat.host
            if host is not None and host.outside and not host.ready and self._placement.usable(seat.bundle):
                end(host.actor)  # found no room elsewhere, and its bundle has moved to another node
                self._start(seat)
            elif host is None and seat.error is None and time.monotonic() >= seat.next_start:
                self._start(seat)

    def _share_out(self) -> None:
        """Where workers may be missing: gives the shares without a process to those that are there, evenly and with few changes."""
        hosts = [seat.host for seat in self.seats if seat.host is not None and seat.ready]
        if not self._elastic or not hosts:
            return
        adopted: dict[Host, list[Seat]] = {host: [] for host in hosts}
        homeless = []
        for seat in (seat for seat in self.seats if not seat.ready):
            if seat.adopter in adopted:
                adopted[seat.adopter].append(seat)
            else:
                homeless.append(seat)
        while homeless or max(map(len, adopted.values())) > min(map(len, adopted.values())) + 1:
            seat = homeless.pop() if homeless else max(adopted.values(), key=len).pop()
            self._leave_share(seat)
            seat.adopter = min(hosts, key=lambda host: len(adopted[host]))
            adopted[seat.adopter].append(seat)

    def _leave_share(self, seat: Seat) -> None:
        """Has the process that did a share's work close its environments."""
        adopter, seat.adopter = seat.adopter, None
        if adopter is not None and adopter.reached.pop(seat.share.number, None) is not None:
            adopter.actor.release.remote(seat.share)

    def _hand_out(self) -> None:
        """Gives the work that nobody has to a process that can do it: its share's own, else one that is idle."""
        now = time.monotonic()
        # Where a process does several shares' work it begins with its own.
        for order in sorted(self._orders, key=lambda order: not order.seat.ready):
            if order.host is None and now >= order.not_before and (host := self._host_for(order.seat, now)) is not None:
                self._hand(order, host)

    def _host_for(self, seat: Seat, now: float) -> Host | None:
        if seat.ready:
            return seat.host
        if seat.attempts.contagious or now - (seat.host.since if seat.host else seat.next_start) < TAKEOVER_SECONDS:
            return None
        if self._elastic:
            if seat.adopter is None or all(other.host is not seat.adopter for other in self.seats):
                seat.adopter = None
                self._share_out()
            return seat.adopter
        busy = [order.host for order in self._orders]
        idle = next((other.host for other in self.seats if other.ready and other.host not in busy), None)
        if idle is not None and seat.away:
            self._faults.count("worker_away")
        elif idle is not None:
            seat.away = True
            self._faults.record(
                "worker_away", seat.share.name, "no process has started for it yet", f"{idle.name} does its work until one has"
            )
        return idle

    def _hand(self, order: Order, host: Host) -> None:
        order.host, order.handed_at = host, time.monotonic()
        if order.episodes is not None:
            order.answer = host.actor.evaluate.remote(order.snapshot, order.episodes)
            return
        share = order.seat.share
        stands = host.reached.get(share.number) == order.iteration
        start = None if stands else (share, order.standpoint)
        order.rollout, order.answer = host.actor.deliver.remote(share.number, order.snapshot, order.iteration, start)
        host.reached[share.number] = order.iteration + 1

    def _welcome(self) -> None:
        """Takes in the processes that have become ready, and sees to those that could not."""
        for seat in self.seats:
            host = seat.host
            if host is None or host.ready or not is_there(host.arrival):
                continue
            try:
                (presence,) = values_of([host.arrival])
            except Gone as error:
                self._died(host, str(error))
                continue
            except Unreachable as error:
                self._ask_again(seat, host, str(error))
                continue
            except UserError as error:
                self._give_up(seat, error)
                continue
            host.presence = presence
            seat.away = False
            if self._logs is not None:
                self._logs.note(f"worker-{seat.share.number}", presence.output)
            if presence.answer != self._env:
                self._give_up(seat, UserError(_difference(self._env, presence.answer)))
            seat.adopter = None
            for other in self.seats:
                if other is not seat and other.host is not None and other.host.reached.pop(seat.share.number, None) is not None:
                    other.host.actor.release.remote(seat.share)

    def _ask_again(self, seat: Seat, host: Host, why: str) -> None:
        seat.attempts.failed()
        if seat.attempts.exhausted(self._policy.max_worker_restarts):
            self._died(host, why)
            return
        self._faults.record("worker_unreachable", host.name, why, "asked again")
        host.arrival = host.actor.ready.remote(seat.share, seat.standpoint)

    def _take_answers(self, there: set[Any]) -> None:
        answered = [order for order in self._orders if order.host is not None and order.answer in there]
        if not answered:
            return
        try:
            values = values_of([order.answer for order in answered])
        except (Gone, Unreachable, UserError):
            for order in answered:
                if order.host is not None:  # the death of one process may concern several orders
                    self._take_answer(order, order.host)
        else:
            for order, value in zip(answered, values, strict=True):
                order.value = value
                self._delivered(order)
        self._orders = [order for order in self._orders if order.open]
        self._dismiss()

    def _take_answer(self, order: Order, host: Host) -> None:
        try:
            (order.value,) = values_of([order.answer])
        except Unreachable as error:
            self._unreachable(order, host, str(error))
        except Gone as error:
            self._died(host, str(error))
        except UserError as error:
            order.error = error
        else:
            self._delivered(order)

    def _delivered(self, order: Order) -> None:
        seat = order.seat
        if order.episodes is None:
            if order.host is seat.host:  # else it may have waited for the share of that process's own
                self._deadline.measured(self._steps_of(seat), time.monotonic() - order.handed_at)
            if seat.standpoint.iteration == order.iteration:
                seat.standpoint = Standpoint(order.iteration + 1, order.value.states)
        seat.attempts.succeeded()
        if seat.failed_at is not None:
            self._faults.recovered(seat.share.name, time.monotonic() - seat.failed_at)
            seat.failed_at = None

    def _unreachable(self, order: Order, host: Host, why: str) -> None:
        """Asks again, later each time; the environments are put where they stood, since nobody knows where they are now."""
        seat, now = order.seat, time.monotonic()
        if seat.attempts.failures >= self._policy.max_worker_restarts:
            self._died(host, why)
            return
        seat.attempts.failed()
        seat.failed_at = seat.failed_at or now
        pause = max(POLL_SECONDS, seat.attempts.pause(self._policy.restart_backoff))
        self._faults.record("worker_unreachable", host.name, why, f"asked again after {pause:g} s")
        host.reached.pop(seat.share.number, None)
        order.host, order.not_before = None, now + pause

    def _died(self, host: Host, why: str, *, hung: bool = False) -> None:
        """Takes a process out of everything, and has its seat and its work go on without it."""
        end(host.actor, self._pid_here(host))
        work = [order for order in self._orders if order.host is host]
        seats = [seat for seat in self.seats if seat.host is host or any(order.seat is seat for order in work)]
        for seat in seats:
            seat.attempts.failed(crashed=any(order.seat is seat for order in work), hung=hung)
            seat.failed_at = seat.failed_at or time.monotonic()
            if seat.host is host:
                self._replace(seat, host, next((order for order in work if order.seat is seat), None), why, hung=hung)
        self._take_back(host)
        self._leaving = [each for each in self._leaving if each is not host]

    def _take_back(self, host: Host) -> None:
        for order in self._orders:
            if order.host is host:
                order.host = None
                if order.seat.standpoint.iteration == order.iteration:
                    order.standpoint = order.seat.standpoint

    def _replace(self, seat: Seat, host: Host, work: Order | None, why: str, *, hung: bool) -> None:
        limit, attempts, seat.host = self._policy.max_worker_restarts, seat.attempts, None
        if self._stop.requested():  # a signal to the whole process group ends actors too
            self._give_up(seat, StopRequested())
            return
        if attempts.exhausted(limit):
            how = f"has {'hung' if hung else 'died'}, failure {attempts.failures} in a row (fault.max_worker_restarts {limit})"
            self._give_up(seat, ResourceError(f"{host.name} {how}: {why}"))
            return
        pause = attempts.pause(self._policy.restart_backoff)
        seat.next_start = time.monotonic() + pause
        done = f"replaced after {pause:g} s" if pause else "replaced"
        if attempts.needs_new_episodes(limit):
            seat.standpoint = Standpoint(seat.standpoint.iteration, None, attempts.failures)
            done += ", with new episodes in its environments"
        self._tell(FaultEvent("worker_hung" if hung else "worker_died", host.name, why, done), work)
        self._start_due()

    def _tell(self, fault: FaultEvent, work: Order | None) -> None:
        """Tells of a process that ended; where it was at a fragment, with what it takes to collect that again."""
        states = None if work is None or work.episodes is not None else work.standpoint.states
        if work is not None and states is not None and all(capture.obstacle is None for capture in states.captures):
            with contextlib.suppress(Gone, Lost):
                (snapshot,) = values_of([work.snapshot])
                self._faults.crashed(Crash(fault, states, snapshot, work.iteration))
                return
        self._faults.add(fault)

    def _give_up(self, seat: Seat, error: Exception) -> None:
        seat.error = error
        for order in self._orders:
            if order.seat is seat:
                order.error = error

    def _end_overdue(self) -> None:
        for order in self._orders:
            host = order.host
            if host is None:
                continue
            ahead = [each for each in self._orders if each.host is host and each.handed_at <= order.handed_at]
            limit = sum(self._seconds_for(each) for each in ahead)
            if time.monotonic() - order.handed_at > limit:
                self._died(host, f"no answer within {limit:.0f} s (fault.collect_timeout)", hung=True)

    def _seconds_for(self, order: Order) -> float:
        if order.episodes is None:
            return self._deadline.seconds(self._steps_of(order.seat))
        longest = self._env.max_episode_steps
        return self._deadline.seconds(None if longest is None else len(order.episodes) * longest)

    def _steps_of(self, seat: Seat) -> int:
        return seat.share.num_envs * self._config.rollout.num_steps

    def _give_up_without_capacity(self) -> None:
        """Waits for capacity as long as any process is left that can go on meanwhile, else no longer than for the first start."""
        starting = [seat.host.since for seat in self.seats if seat.host is not None and not seat.ready]
        if len(starting) < len(self.seats) or not self._orders:
            return
        timeout = self._policy.startup_timeout
        if time.monotonic() - min(starting) > timeout:
            needed = cluster.needed_resources(self._config, len(self.seats))
            lacking = f"no rollout worker could be started again within {timeout:g} s (fault.startup_timeout). "
            for seat in self.seats:
                self._give_up(seat, ResourceError(lacking + cluster.resources_text(needed)))

    def _dismiss(self) -> None:
        """Ends the processes on nodes that drain, once they have finished what they were at."""
        for host in [host for host in self._leaving if all(order.host is not host for order in self._orders)]:
            self._part_with([host])
            self._leaving.remove(host)


def _difference(here: EnvSpec, there: EnvSpec) -> str:
    return f"{here.id!r} looks different on the workers ({there}) than here ({here}); are the same packages installed?"
