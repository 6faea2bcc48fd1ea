"""The settings of a run: one frozen dataclass a section, one documented field a setting.

Every field is declared with `setting(...)`, which keeps its meaning, unit and limits beside its default. Validation, the
command line's help and `docs/configuration.md` are all read from here, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plugin:
    """A class or function of the user's, by name, and what it is called with. In YAML: `module:Name`, or `{class: module:Name, scale: 2}`.

    Attributes:
        target: `module:Name`.
        kwargs: keyword arguments, plain values.
    """

    target: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def plain(self) -> str | dict[str, Any]:
        """Returns it as it is written in YAML."""
        return {"class": self.target, **self.kwargs} if self.kwargs else self.target


class WorkerRange(int):
    """A number of rollout workers of which some may be missing. As a number it is the most: what a run is laid out for.

    Args:
        most: workers that the environments are shared out over.
        least: with which a run starts and goes on; None: all of them.
    """

    least: int

    def __new__(cls, most: int, least: int | None = None) -> WorkerRange:
        made = super().__new__(cls, most)
        made.least = most if least is None else least
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and int(self) == int(other) and self.least == getattr(other, "least", int(other))

    def __ne__(self, other: object) -> bool:
        return not self == other  # that of int would not ask

    def __hash__(self) -> int:
        return int(self)

    def __str__(self) -> str:
        return f"{int(self)}" if self.least == int(self) else f"{self.least}-{int(self)}"

    __repr__ = __str__


def setting(
    default: Any,
    doc: str,
    *,
    extremes: str = "",
    choices: tuple[str, ...] | None = None,
    none: str = "off",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """Declares one setting: a dataclass field that carries its documentation and its limits.

    Args:
        default: value when nothing sets it; a dict is copied for each instance.
        doc: meaning and unit, short enough for `--help`.
        extremes: what very small and very large values do; for the reference alone.
        choices: the allowed strings, for a setting that is a choice.
        none: the word that stands for None, where None is allowed: off, or auto.
        at_least: smallest allowed number; of each entry, for a list.
        above: every allowed number is greater than this.
        at_most: largest allowed number.
        below: every allowed number is smaller than this.
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below}
    metadata = {
        "doc": doc,
        "extremes": extremes,
        "choices": choices,
        "none": none,
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EnvConfig:
    """Which environment is trained, and how it is made."""

    id: str = setting(
        "HalfCheetah-v4",
        "Gymnasium environment id; module:Env-v0 imports the module first; module:Name is a class or function that returns an environment.",
    )
    kwargs: dict[str, Any] = setting(  # noqa: RUF009 - it returns a dataclasses.field
        {},
        "Keyword arguments for gymnasium.make: plain text, numbers, true, false, null, lists and mappings.",
        extremes="A mapping replaces the whole of an earlier one; --set env.kwargs.name=value sets one entry.",
    )
    wrappers: tuple[Plugin, ...] = setting(
        (),
        "Wrappers around the environment, the first innermost: module:Wrapper each, or {class: module:Wrapper} with arguments beside it.",
        extremes="Each adds its own time to every step.",
    )
    frame_stack: int = setting(
        1,
        "The policy sees this many of the latest observations, oldest first, along a new first axis; 1 sees the latest alone.",
        extremes="1 hides velocities from a policy that sees images. Many: more memory, slower networks.",
        at_least=1,
    )
    max_episode_steps: int | None = setting(
        None,
        "Env steps after which an episode is truncated; off takes the limit the environment is registered with.",
        extremes="Short episodes never show what comes late, and returns of other lengths do not compare; long ones finish rarely.",
        at_least=1,
    )
    check: bool = setting(
        False,
        "Examine the environment before anything starts: spaces, types, bounds, finite numbers, seeding. A problem ends the run.",
        extremes="On: a few episodes before the start. Off: the first step of each environment is checked, and that numbers are finite.",
    )


@dataclass(frozen=True)
class RolloutConfig:
    """How much experience is collected in an iteration, and by whom."""

    num_envs: int = setting(
        8,
        "Environments in total, shared out over the workers.",
        extremes="Few: the batch holds few episodes, strongly correlated. Many: more memory, and a larger batch unless num_steps falls.",
        at_least=1,
        at_most=2**20,
    )
    num_workers: WorkerRange | int | None = setting(  # noqa: RUF009 - it returns a dataclasses.field
        None,
        "Ray rollout workers. auto takes one a core, at most one an environment; 0 runs collector and learner in one process without Ray; "
        "2-8 starts with 2 and goes on with up to 8, as the cluster has room.",
        extremes="0 is the easiest to debug and uses one core. More workers than cores take time from each other.",
        none="auto",
        at_least=0,
    )
    num_steps: int = setting(
        2048,
        "Env steps of each environment in an iteration; batch = num_envs x num_steps.",
        extremes="Short: advantages lean on the critic, updates are noisy and frequent. Long: few updates, each on old data.",
        at_least=1,
    )
    mode: str = setting(
        "sync",
        "sync collects with the newest weights (staleness 0, exact); overlap collects while the learner updates (staleness exactly 1).",
        extremes="overlap gains up to the shorter of the collect and update times of an iteration.",
        choices=("sync", "overlap"),
    )


@dataclass(frozen=True)
class PPOConfig:
    """The algorithm's coefficients."""

    learning_rate: float = setting(
        3e-4,
        "Adam's step size, or its starting value where lr_schedule changes it.",
        extremes="Small: return barely moves in the given steps. Large: approx_kl and clip_fraction jump and the return collapses.",
        above=0,
    )
    lr_schedule: str = setting(
        "constant",
        "constant; linear or cosine to 0 at total_timesteps; "
        "kl multiplies or divides by 1.5 after each epoch to keep its KL near lr_schedule_kl.",
        extremes="linear and cosine depend on total_timesteps: a longer run also decays later.",
        choices=("constant", "linear", "cosine", "kl"),
    )
    lr_schedule_kl: float = setting(
        0.008,
        "Target KL of an epoch in nats for lr_schedule kl: above 2x the rate falls, below half of it the rate rises.",
        extremes="Small: slow, safe updates. Large: the rate climbs until clipping alone limits the update.",
        above=0,
    )
    objective: str = setting(
        "clip",
        "clip: the probability ratio is clipped (PPO); spo: its distance from 1 is penalized instead, "
        "quadratically (Simple Policy Optimization, https://arxiv.org/abs/2401.16025).",
        extremes="spo keeps the ratios nearer to 1. Which of them learns more depends on the environment.",
        choices=("clip", "spo"),
    )
    clip_epsilon: float = setting(
        0.2,
        "The probability ratio is clipped to [1 - clip_epsilon, 1 + clip_epsilon]; with objective spo the penalty wins there.",
        extremes="Near 0: most samples are clipped and the policy hardly moves. Near 1: nothing restrains the update.",
        above=0,
        below=1,
    )
    epochs: int = setting(
        10,
        "Shuffled passes over the batch in an update.",
        extremes="1 wastes samples. Many overfit the batch: approx_kl grows with each, and the update takes proportionally longer.",
        at_least=1,
    )
    mini_batch_size: int = setting(
        64,
        "Samples in one gradient step; must divide the batch.",
        extremes="Small: noisy gradients, many steps, slow on a GPU. The whole batch: one smooth step an epoch.",
        at_least=1,
    )
    gamma: float = setting(
        0.99,
        "Discount per env step.",
        extremes="0 sees the next reward only; 0.99 weighs about 100 steps; 1 weighs all and makes the critic's task hardest.",
        at_least=0,
        at_most=1,
    )
    gae_lambda: float = setting(
        0.95,
        "GAE's trade of bias (0: one-step TD) against variance (1: Monte Carlo).",
        extremes="0 trusts the critic entirely; 1 uses it as a baseline only.",
        at_least=0,
        at_most=1,
    )
    entropy_coef: float = setting(
        0.01,
        "Weight of the entropy bonus; 0 disables it.",
        extremes="0: the noise may die out early. Large: the noise grows and drowns the return.",
        at_least=0,
    )
    value_loss_coef: float = setting(
        0.5,
        "Weight of the squared value error.",
        extremes="0: the critic never learns. Large: with a shared trunk or max_grad_norm it crowds out the policy's gradient.",
        at_least=0,
    )
    value_clip: float | None = setting(
        None,
        "The value prediction moves at most this far from the rollout's (in the critic's own units) before its loss stops growing; "
        "off disables.",
        extremes="Small: the critic cannot follow its targets. Large: as off.",
        above=0,
    )
    max_grad_norm: float | None = setting(
        0.5,
        "The gradient's global norm is scaled down to this; off disables.",
        extremes="Small: every step is scaled, though Adam undoes most of it. Large: as off.",
        above=0,
    )
    target_kl: float | None = setting(
        None,
        "The update stops after the first epoch whose approximate KL exceeds this many nats; off never stops.",
        extremes="Small: every update ends after one epoch. Large: as off.",
        above=0,
    )
    advantage_normalization: str = setting(
        "minibatch",
        "Advantages are shifted and scaled to mean 0, std 1 over each minibatch or over the batch; off leaves them.",
        extremes="minibatch is noisy with small minibatches; off makes the policy's gradient scale with the rewards.",
        choices=("minibatch", "batch", "off"),
    )
    recompute_advantages: bool = setting(
        False,
        "Recompute values, advantages and returns with the current critic before every epoch, not once.",
        extremes="On: fresher advantages for one more critic pass an epoch.",
    )
    optimizer: str = setting("adam", "Adam with betas 0.9 and 0.999.", choices=("adam",))
    adam_epsilon: float = setting(
        1e-5,
        "Added to Adam's denominator.",
        extremes="Tiny: parameters with vanishing gradients take full steps. Large: Adam turns into plain gradient descent with momentum.",
        above=0,
    )


@dataclass(frozen=True)
class NetworkConfig:
    """The actor and the critic."""

    torso: str = setting(
        "auto",
        "mlp: hidden layers over the flat observation; cnn: convolutions first, over uint8 images; auto: cnn for images that it fits on.",
        choices=("auto", "mlp", "cnn"),
    )
    hidden_sizes: tuple[int, ...] | None = setting(
        None,
        "Widths of the hidden layers, in a cnn of those after the convolutions; [] has none. auto: [64, 64] for mlp, [512] for cnn.",
        extremes="Narrow: cannot represent the gait. Wide: slower acting and updates, and more steps until it is good.",
        none="auto",
        at_least=1,
    )
    activation: str | None = setting(
        None, "Non-linearity of the hidden layers; auto: tanh for mlp, relu for cnn.", none="auto", choices=("tanh", "relu", "elu")
    )
    layer_norm: bool = setting(
        False,
        "Normalize each hidden layer's inputs to its non-linearity to mean 0, std 1, with a learned scale and shift (not convolutions').",
        extremes="On: bears larger learning rates and longer training; acting and updates take longer.",
    )
    channels: tuple[int, ...] = setting((32, 64, 64), "Output channels of a cnn's convolutions.", at_least=1)
    kernels: tuple[int, ...] = setting((8, 4, 3), "Pixels on a side of each convolution's kernel.", at_least=1)
    strides: tuple[int, ...] = setting(
        (4, 2, 1), "Pixels between the places of each convolution's kernel.", extremes="1 on large images: slow.", at_least=1
    )
    shared: bool = setting(
        False,
        "One trunk under the actor's and the critic's heads instead of one each.",
        extremes="On: half the arithmetic, and value_loss_coef now weighs policy against critic.",
    )
    init: str = setting(
        "orthogonal",
        "orthogonal: gain sqrt(2), action outputs 0.01, value 1, biases 0; default: torch's.",
        choices=("orthogonal", "default"),
    )
    initial_log_std: float = setting(
        0.0,
        "Starting log standard deviation of every continuous action dimension, in the actions' [-1, 1] units.",
        extremes="-3: hardly explores. 1: most actions are clipped to the bounds.",
        at_least=-20,
        at_most=20,
    )
    class_: str | None = setting(
        None,
        "module:Class of your own network, a distppo.ActorCriticModule, instead of all of the above; docs/networks.md has an example.",
    )
    options: dict[str, Any] = setting(  # noqa: RUF009 - it returns a dataclasses.field
        {}, "Keyword arguments for network.class."
    )


@dataclass(frozen=True)
class NormalizationConfig:
    """What is brought to unit scale."""

    observations: bool = setting(
        True,
        "Shift and scale observations by the running mean and std (one below 1e-4 counts as 1e-4), synchronized over all workers. "
        "Never applies to a cnn's images, which are scaled to [0, 1].",
        extremes="Off: dimensions of large scale rule the first layer.",
    )
    observation_clip: float = setting(
        10.0,
        "Normalized observations are clipped to +-this many standard deviations.",
        extremes="Small: hides rare states, such as a fall. Large: one outlier can throw the policy.",
        above=0,
    )
    rewards: bool = setting(
        True,
        "Divide rewards by the running std of the discounted return (one below 1e-4 counts as 1e-4); they are never shifted.",
        extremes="Off: the value loss has the rewards' own scale squared.",
    )
    values: bool = setting(False, "Regress the critic on returns normalized by their running mean and std.")


@dataclass(frozen=True)
class LearnerConfig:
    """How the update is computed."""

    device: str = setting(
        "cpu",
        "auto takes a GPU when torch finds one.",
        extremes="A GPU pays off with wide networks or minibatches of thousands; below, a CPU is faster.",
        choices=("auto", "cpu", "cuda"),
    )
    threads: int | None = setting(
        None,
        "Threads of the learner's arithmetic; auto: one or two for small networks, all cores that are free for large minibatches.",
        extremes="More than the cores that are free, or than two on small networks, make it slower.",
        none="auto",
        at_least=1,
    )
    step: str = setting(
        "auto",
        "fused: a whole epoch as one compiled CPU kernel (torso mlp); torch: autograd, everything else; auto: fused wherever it applies.",
        choices=("auto", "fused", "torch"),
    )
    compile: bool = setting(False, "Run the torch step through torch.compile (needs a C++ compiler; the first update waits for it).")
    num_learners: int = setting(
        1,
        "Learner processes that share out every minibatch and add up their gradients; must divide mini_batch_size. "
        "Each takes a CPU, with device cuda a GPU.",
        extremes="1 is fastest for small networks, and alone has the fused step. More pay where a gradient step takes milliseconds.",
        at_least=1,
        at_most=1024,
    )


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation during training: separate environments, deterministic actions, frozen statistics."""

    every: int = setting(
        100_000,
        "Env steps between evaluations, rounded up to an iteration; 0 evaluates never.",
        extremes="Small: evaluation takes a large share of the time. 0: no best checkpoint is chosen.",
        at_least=0,
    )
    episodes: int = setting(5, "Episodes of an evaluation.", extremes="Few: the best checkpoint may be luck. Many: slow.", at_least=1)


@dataclass(frozen=True)
class RunConfig:
    """Length, seed and files of a run."""

    total_timesteps: int = setting(
        1_000_000, "Env steps at which training ends (absolute: a resumed run counts its earlier steps).", at_least=1
    )
    seed: int = setting(
        0, "Source of every random stream; the same seed and layout give the same run bit for bit.", at_least=0, below=2**63
    )
    checkpoint_every: int = setting(
        100_000,
        "Env steps between periodic checkpoints, rounded up to an iteration; 0 saves at the end only.",
        extremes="0: an interruption that cannot be caught loses the run. Small: more time spent writing.",
        at_least=0,
    )
    keep_checkpoints: int = setting(
        3, "Periodic checkpoints kept, newest first; the best is kept besides.", extremes="Many: disk space only.", at_least=2
    )
    directory: str | None = setting(None, "Run directory; off names one runs/<env>-seed<seed>-<time>.")
    storage: str | None = setting(
        None,
        "Folder or fsspec URL (s3://bucket/runs) that checkpoints are copied to, under the run's name; --resume takes URL/<run> anywhere.",
        extremes="off: they are in the run directory alone, and go with its machine.",
    )
    callbacks: tuple[Plugin, ...] = setting(
        (),
        "Callbacks in the driver, called in this order: each module:Class, or {class: module:Class} with its arguments beside it.",
    )


@dataclass(frozen=True)
class MetricsConfig:
    """Where metrics go besides the run directory. A process of its own sends them there, so that nothing of it can hold up training."""

    wandb: dict[str, Any] = setting(  # noqa: RUF009 - it returns a dataclasses.field
        {},
        "Weights & Biases: any of project, name, tags, group, entity, notes, mode (online, offline); {} is off. Needs the extra wandb.",
    )
    mlflow: dict[str, Any] = setting(  # noqa: RUF009 - it returns a dataclasses.field
        {},
        "MLflow: any of project (its experiment), name, tags, tracking_uri; {} is off. Needs the extra mlflow.",
    )
    loggers: tuple[Plugin, ...] = setting(
        (),
        "Loggers of your own, distppo.metrics.loggers:MetricLogger: each module:Class, or {class: module:Class} with arguments beside it.",
    )


@dataclass(frozen=True)
class ClusterConfig:
    """Where the processes of a run go on a cluster."""

    placement: str = setting(
        "pack",
        "pack puts learner and workers on as few nodes as they fit on; spread on as many as there are. Neither is a condition.",
        extremes="pack keeps fragments off the network. spread: a lost node takes fewer workers with it.",
        choices=("pack", "spread"),
    )
    learner_label: str | None = setting(
        "ray.io/market-type=on-demand",
        "Label, as name=value, of the nodes that the learner is put on, where there are any; off asks for none.",
        extremes="A node that has it but no room is waited for 10 s, then any other will do.",
    )


@dataclass(frozen=True)
class FaultConfig:
    """What a run puts up with, and for how long."""

    startup_timeout: float = setting(
        120.0,
        "Seconds for all actors to be scheduled and ready, before the run ends with what it lacks; later, for any worker to come back.",
        extremes="Short: gives up while a cluster is still growing. Long: a request that can never be met is noticed late.",
        above=0,
    )
    max_env_restarts: int = setting(
        3,
        "Times that an environment whose code raises is made anew for the same fragment; once more ends the run with its traceback.",
        extremes="0: the first error of an environment ends the run. Large: one that always fails is tried for long.",
        at_least=0,
    )
    env_restart_backoff: float = setting(
        0.5,
        "Seconds before an environment is made anew a second time for the same fragment, doubled for each time after it.",
        extremes="0: all attempts are made at once. Large: a worker with a failing environment holds up the others.",
        at_least=0,
    )
    on_nonfinite: str = setting(
        "raise",
        "At a number that is not finite: raise ends the run; drop makes an environment that gives one anew, as one that raises, and undoes "
        "an update whose loss or gradient is one.",
        extremes="drop hides a defect of the environment if nobody looks at the faults it counts.",
        choices=("raise", "drop"),
    )
    max_dumps: int = setting(
        10,
        "Flight records in the run directory's faults/, the first ones of a run; 0 writes none.",
        extremes="Large: an environment that fails often fills the disk, at up to a megabyte each.",
        at_least=0,
    )
    dump_observations: int = setting(
        64, "Observations before a fault that its flight record holds; the actions are kept from the fragment's beginning.", at_least=1
    )
    max_worker_restarts: int = setting(
        6,
        "Failures in a row, at the same fragment or update, after which a worker or the learner is replaced; one more ends the run. "
        "Whatever is delivered starts a new count. From the second half on, and after a second hang, the environments start new episodes.",
        extremes="0: any death of a process ends the run, with its last iteration saved. Large: an environment that always crashes is "
        "tried for long.",
        at_least=0,
    )
    restart_backoff: float = setting(
        1.0,
        "Seconds before the third attempt at the same thing, doubled for each after it, up to 60; the second is made at once.",
        extremes="0: all attempts are made within seconds. Large: a machine that recovers by itself is waited for too long.",
        at_least=0,
    )
    collect_timeout: float | None = setting(
        None,
        "Seconds for a worker's fragment, or its share of an evaluation, before its process is killed and replaced; auto allows 10 times "
        "the slowest pace seen so far, at least 60, and 1800 before there is any.",
        extremes="Short: slow fragments are taken for hanging ones, and collected over and over. Long: a hang is noticed late.",
        none="auto",
        above=0,
    )
    learner_timeout: float = setting(
        60.0,
        "Seconds that one of several learners waits for another inside an update, before all of them are started again; one that dies is "
        "noticed at once.",
        extremes="Short: a machine that is busy with something else is taken for one that hangs. Long: a hang is noticed late.",
        above=0,
    )
    learner_state_every: int | None = setting(
        None,
        "Updates between the copies of the learner's state from which a lost learner is rebuilt, making those after it again; auto is 1, "
        "or 4 where parameters and optimizer take more than 16 MiB.",
        extremes="1: one update is repeated; a copy is made in each. Large: rollouts stay in memory, and more is made again.",
        none="auto",
        at_least=1,
    )
    max_checkpoint_failures: int = setting(
        5,
        "Checkpoints in a row that may fail to be saved, as on a full disk; one more ends the run.",
        extremes="0: the first failure ends the run. Large: a run may go on for long with nothing new to resume from.",
        at_least=0,
    )


@dataclass(frozen=True)
class Config:
    """All settings of a run. `distppo.load_config` reads one from YAML files and overrides.

    Example:
        >>> Config().ppo.clip_epsilon
        0.2
    """

    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    normalization: NormalizationConfig = dataclasses.field(default_factory=NormalizationConfig)
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    metrics: MetricsConfig = dataclasses.field(default_factory=MetricsConfig)
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    fault: FaultConfig = dataclasses.field(default_factory=FaultConfig)

    @property
    def batch_size(self) -> int:
        """Env steps of one iteration, B = num_envs x num_steps."""
        return self.rollout.num_envs * self.rollout.num_steps

    @property
    def num_iterations(self) -> int:
        """Iterations to reach total_timesteps; the last one may pass it by less than a batch."""
        return -(-self.run.total_timesteps // self.batch_size)
