"""When a broken environment is worth making anew, and what is said of it."""

from __future__ import annotations

from distppo.collector.defects import Defect
from distppo.config.schema import FaultConfig
from distppo.errors import EnvFaultError, UserError
from distppo.types import EnvStates, FaultEvent, FlightRecord, PolicySnapshot


def require_hope(
    env: int, defect: Defect, snapshot: PolicySnapshot, fault: FaultConfig, record: FlightRecord | None, *, last: bool
) -> None:
    """Returns where another environment may help.

    Args:
        env: global index.
        defect: of it.
        snapshot: it was collected with.
        fault: what the run puts up with.
        record: of the defect.
        last: whether all attempts have been made.

    Raises:
        EnvFaultError: it is not to be tried, or not again.
        UserError: the policy is to blame.
    """
    name = f"environment {env} of {snapshot.spec.env.id!r}"
    if defect.kind == "policy_nonfinite":
        raise UserError(
            f"the policy of version {snapshot.version} diverged: {name} {defect.text} at step {defect.step} of the fragment. "
            "Go on from an earlier checkpoint with a lower ppo.learning_rate"
        )
    event = FaultEvent(defect.kind, name, defect.text, "the run ends", record=record)
    if defect.kind == "env_nonfinite" and (fault.on_nonfinite == "raise" or last):
        when = "in its reset" if defect.step < 0 else f"at step {defect.step} of the fragment"
        text = f"{name} {defect.text} {when}; nothing of this fragment was learned. Check the environment's reward and dynamics"
        if fault.on_nonfinite == "raise":
            raise EnvFaultError(f"{text}, or go on without the episodes it spoils with fault.on_nonfinite=drop", event)
        raise EnvFaultError(text + _attempts_text(fault.max_env_restarts), event)
    if last:
        raise EnvFaultError(defect.text + _attempts_text(fault.max_env_restarts), event)


def mending_event(env: int, defect: Defect, iteration: int, attempt: int, record: FlightRecord | None) -> FaultEvent:
    """Returns what is told of an environment that is made anew for the `attempt`-th time."""
    where = f"environment {env}, iteration {iteration}, step {defect.step} of the fragment"
    done = f"made anew (attempt {attempt}); its part of the fragment is collected again from a new episode, the others went on"
    return FaultEvent(defect.kind, where, defect.text, done, record=record)


def only(states: EnvStates, n: int) -> EnvStates:
    """Returns the states of environment n alone."""
    part = slice(n, n + 1)
    return EnvStates(
        first_env=states.first_env + n,
        observations=states.observations[part],
        lengths=states.lengths[part],
        returns=states.returns[part],
        discounted_returns=states.discounted_returns[part],
        captures=states.captures[part],
    )


def _attempts_text(restarts: int) -> str:
    if restarts == 0:
        return ""
    return f"\n  It was made anew {restarts} time{'s' if restarts > 1 else ''} for this fragment (fault.max_env_restarts)"
