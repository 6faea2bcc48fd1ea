"""Times PPO of Sample Factory 2 on one task and prints one JSON line.

Sample Factory 2.1 pins gymnasium below 1.0, so it steps another build of MuJoCo than the others; the printed versions say which.
"""

from __future__ import annotations

import argparse
import tempfile

import gymnasium as gym
import peer
import torch
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner


class Marker(AlgoObserver):
    """Called after each iteration's update."""

    def __init__(self, watch: peer.Stopwatch) -> None:
        self.watch = watch

    def on_training_step(self, runner, training_iteration_since_resume) -> None:
        self.watch.iteration_ended(runner.env_steps[0])


def settings(task: argparse.Namespace, directory: str) -> list[str]:
    """The task in Sample Factory's words."""
    values = {
        "env": task.env,
        "experiment": "throughput",
        "train_dir": directory,
        "restart_behavior": "overwrite",
        "device": "cpu",
        "seed": task.seed,
        "async_rl": task.mode == "async",
        "serial_mode": False,
        "num_workers": task.workers,
        "num_envs_per_worker": task.num_envs // task.workers,
        "worker_num_splits": 2 if task.mode == "async" else 1,
        # A fragment may not be longer than a minibatch: the batch is the same, made of more and shorter fragments.
        "rollout": min(task.num_steps, task.mini_batch_size),
        "batch_size": task.mini_batch_size,
        "num_batches_per_epoch": task.batch // task.mini_batch_size,
        "num_epochs": task.epochs,
        "shuffle_minibatches": True,
        # Counted in gradient steps, of which an update takes more than the 1000 that are allowed by default.
        "max_policy_lag": 10**6,
        "train_for_env_steps": task.iterations * task.batch,
        "learning_rate": peer.LEARNING_RATE,
        "gamma": peer.GAMMA,
        "gae_lambda": peer.GAE_LAMBDA,
        "ppo_clip_ratio": peer.CLIP_EPSILON,
        "value_loss_coeff": peer.VALUE_LOSS_COEF,
        "exploration_loss_coeff": 0.0,
        "max_grad_norm": peer.MAX_GRAD_NORM,
        "use_rnn": False,
        "recurrence": 1,
        "adaptive_stddev": False,
        "actor_critic_share_weights": False,
        "nonlinearity": task.activation,
        "normalize_input": True,
        "normalize_returns": True,
        "value_bootstrap": True,
        "with_vtrace": False,
        "env_frameskip": 1,
        "save_every_sec": 3600,
        "decorrelate_envs_on_one_worker": False,
    }
    flags = [f"--{name}={value}" for name, value in values.items()]
    return [*flags, "--encoder_mlp_layers", *map(str, task.hidden)]


def make_env(name, config, env_config, render_mode=None):
    """Sample Factory's processes call it; the environment's name there is gymnasium's id."""
    return gym.make(name, render_mode=render_mode)


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--mode", default="sync", choices=("sync", "async"), help="async collects while it learns, with policy lag")
    task = peer.read(parser)
    torch.set_num_threads(task.threads)
    register_env(task.env, make_env)
    watch = peer.Stopwatch()
    with tempfile.TemporaryDirectory() as directory:
        flags, _ = parse_sf_args(argv=settings(task, directory))
        _, runner = make_runner(parse_full_cfg(flags, settings(task, directory)))
        runner.register_observer(Marker(watch))
        runner.init()
        runner.run()
    peer.print_result(task, watch, ["sample-factory"])


if __name__ == "__main__":
    main()
