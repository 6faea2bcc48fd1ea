"""Trains PPO of Stable-Baselines3 with the settings given as JSON, and scores it: curve.csv and result.json in the run's folder."""

from __future__ import annotations

import time

BEGAN = time.perf_counter()  # before the imports below, which a user waits for too

import argparse  # noqa: E402
import copy  # noqa: E402
import csv  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize  # noqa: E402

ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}
TRIAL_ITERATIONS = 2
PACKAGES = ("stable-baselines3", "gymnasium", "mujoco", "numpy", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--env", required=True, help="gymnasium id")
    add("--settings", required=True, type=json.loads, help="JSON: keyword arguments of PPO, n_envs besides, policy_kwargs with names in it")
    add("--seed", type=int, required=True, help="of the library's generators")
    add("--total-timesteps", type=int, required=True, help="env steps")
    add("--evaluate-every", type=int, required=True, help="env steps between two evaluations, the best of which is kept")
    add("--evaluation-seeds", required=True, type=json.loads, help="JSON list: resets of training's evaluations, an episode each")
    add("--score-seeds", required=True, type=json.loads, help="JSON list: resets of the scored episodes")
    add("--directory", required=True, type=Path, help="of the run")
    task = parser.parse_args()
    task.directory.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter() - BEGAN
    threads = fastest_threads(task)
    torch.set_num_threads(threads)
    model, callback = make_model(task), Recorder(task)
    model.learn(task.total_timesteps, callback=callback)
    callback.record()
    seconds = callback.seconds()
    last = play_both(task, model, model.get_vec_normalize_env())
    last_return = callback.training_return()
    best = None
    if callback.best is not None:
        env_steps, weights, normalizer = callback.best
        model.policy.load_state_dict(weights)
        best = {"env_steps": env_steps, **play_both(task, model, normalizer)}
    versions = {name.replace("-", "_"): importlib.metadata.version(name) for name in PACKAGES}
    result = {
        "seed": task.seed,
        "env_steps": model.num_timesteps,
        "training_return": last_return,
        **last,
        "best": best,
        "training_seconds": seconds,
        "start_seconds": started,
        "wall_seconds": started + seconds,
        "threads": threads,
        "versions": {"python": platform.python_version(), **versions},
    }
    temporary = task.directory / "result.json.tmp"
    temporary.write_text(json.dumps(result))
    os.replace(temporary, task.directory / "result.json")


def make_model(task: argparse.Namespace) -> PPO:
    """Returns the model, with its environments, before training."""
    settings = dict(task.settings)
    network = dict(settings.pop("policy_kwargs", {}))
    if "activation_fn" in network:
        network["activation_fn"] = ACTIVATIONS[network["activation_fn"]]
    envs = make_vec_env(task.env, n_envs=settings.pop("n_envs"), seed=task.seed, vec_env_cls=DummyVecEnv)
    # As rl-zoo3 does for normalize: true.
    envs = VecNormalize(envs, gamma=settings["gamma"])
    return PPO("MlpPolicy", envs, policy_kwargs=network, seed=task.seed, device="cpu", **settings)


def fastest_threads(task: argparse.Namespace) -> int:
    """Returns how many threads of torch's train fastest, tried with models that are thrown away. It is not on the clock."""
    seconds: dict[int, float] = {}
    for threads in (1, 2, 1, 2):
        torch.set_num_threads(threads)
        model = make_model(task)
        began = time.perf_counter()
        model.learn(TRIAL_ITERATIONS * model.n_steps * model.n_envs)
        seconds[threads] = min(time.perf_counter() - began, seconds.get(threads, np.inf))
        model.get_env().close()
    return min(seconds, key=lambda threads: seconds[threads])


class Recorder(BaseCallback):
    """Writes a row after every update, evaluates now and then, and keeps the weights with the best evaluation.

    Args:
        task: the command line.
    """

    def __init__(self, task: argparse.Namespace) -> None:
        super().__init__()
        self._task, self._next = task, task.evaluate_every
        self._file = open(task.directory / "curve.csv", "w", newline="", encoding="utf-8")  # noqa: SIM115 - to the end of the run
        self._rows = csv.writer(self._file)
        self._evaluation: float | None = None
        self._best_return = -np.inf
        self._began = 0.0
        self.best: tuple[int, dict[str, Any], VecNormalize] | None = None

    def _on_training_start(self) -> None:
        self._began = time.perf_counter()
        self._rows.writerow(["env_steps", "seconds", "training_return", "evaluation_return"])

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > 0:
            self.record()

    def _on_step(self) -> bool:
        return True

    def record(self) -> None:
        """Writes the row of the iteration that has ended, with its update."""
        if self.num_timesteps >= self._next:
            self._next += self._task.evaluate_every
            self._evaluate()
        self._rows.writerow([self.num_timesteps, self.seconds(), self.training_return(), self._evaluation])
        self._file.flush()
        self._evaluation = None

    def seconds(self) -> float:
        """Returns the seconds since training began."""
        return time.perf_counter() - self._began

    def training_return(self) -> float | None:
        """Returns the mean of the last 100 episodes; None before the first has ended."""
        ended = self.model.ep_info_buffer
        return float(np.mean([episode["r"] for episode in ended])) if ended else None

    def _evaluate(self) -> None:
        normalizer = self.model.get_vec_normalize_env()
        returns = [episode[0] for episode in play(self._task.env, self.model, normalizer, self._task.evaluation_seeds, deterministic=True)]
        self._evaluation = float(np.mean(returns))
        if self._evaluation > self._best_return:
            self._best_return = self._evaluation
            frozen = copy.copy(normalizer)
            frozen.obs_rms = copy.deepcopy(normalizer.obs_rms)
            self.best = (self.num_timesteps, copy.deepcopy(self.model.policy.state_dict()), frozen)


def play_both(task: argparse.Namespace, model: PPO, normalizer: VecNormalize) -> dict[str, Any]:
    """Returns the scores with the most likely action and with sampled ones."""
    scores = {}
    for name, deterministic in (("deterministic", True), ("stochastic", False)):
        torch.manual_seed(task.score_seeds[0])
        episodes = play(task.env, model, normalizer, task.score_seeds, deterministic=deterministic)
        returns, lengths = (np.array(column) for column in zip(*episodes, strict=True))
        scores[name] = {
            "mean": float(returns.mean()),
            "std": float(returns.std()),
            "length": float(lengths.mean()),
            "returns": [round(float(value), 3) for value in returns],
        }
    return scores


def play(env_id: str, model: PPO, normalizer: VecNormalize, seeds: list[int], *, deterministic: bool) -> list[tuple[float, int]]:
    """Returns (return, length) of an episode for each seed: raw rewards, statistics as they are."""
    env, episodes = gym.make(env_id), []
    for seed in seeds:
        observation, _ = env.reset(seed=seed)
        total, length, ended = 0.0, 0, False
        while not ended:
            action, _ = model.predict(normalizer.normalize_obs(observation), deterministic=deterministic)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, length, ended = total + float(reward), length + 1, terminated or truncated
        episodes.append((total, length))
    env.close()
    return episodes


if __name__ == "__main__":
    main()
