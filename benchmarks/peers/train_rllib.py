"""Times PPO of RLlib (new API stack) on one task and prints one JSON line."""

from __future__ import annotations

import argparse

import peer
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def config(task: argparse.Namespace) -> PPOConfig:
    """The task in RLlib's words; what the others do not have either (KL penalty, value clipping) is off."""
    model = DefaultModelConfig(
        fcnet_hiddens=task.hidden,
        fcnet_activation=task.activation,
        vf_share_layers=False,
        log_std_clip_param=20.0,
    )
    return (
        PPOConfig()
        .environment(task.env)
        .env_runners(
            num_env_runners=task.workers,
            num_envs_per_env_runner=task.num_envs // task.workers,
            rollout_fragment_length=task.num_steps,
            env_to_module_connector=lambda env, spaces, device: MeanStdFilter(),
        )
        .learners(num_learners=0)
        .training(
            lr=peer.LEARNING_RATE,
            gamma=peer.GAMMA,
            lambda_=peer.GAE_LAMBDA,
            clip_param=peer.CLIP_EPSILON,
            train_batch_size_per_learner=task.batch,
            minibatch_size=task.mini_batch_size,
            num_epochs=task.epochs,
            vf_loss_coeff=peer.VALUE_LOSS_COEF,
            vf_clip_param=float("inf"),
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=peer.MAX_GRAD_NORM,
            grad_clip_by="global_norm",
        )
        .rl_module(model_config=model)
        .reporting(min_time_s_per_iteration=0)
        .debugging(seed=task.seed, log_level="ERROR")
    )


def main() -> None:
    task = peer.read(peer.parser(__doc__))
    torch.set_num_threads(task.threads)
    ray.init(num_cpus=task.workers + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    algorithm = config(task).build_algo()
    watch = peer.Stopwatch()
    for _ in range(task.iterations):
        result = algorithm.train()
        watch.iteration_ended(int(result["env_runners"]["num_env_steps_sampled_lifetime"]))
    peer.print_result(task, watch, ["ray"])
    algorithm.stop()
    ray.shutdown()


if __name__ == "__main__":
    main()
