"""Times PPO of Stable-Baselines3 on one task and prints one JSON line."""

from __future__ import annotations

import peer
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize


class Marker(BaseCallback):
    """A rollout starts where the previous iteration, its update included, has ended."""

    def __init__(self, watch: peer.Stopwatch) -> None:
        super().__init__()
        self.watch = watch

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > 0:
            self.watch.iteration_ended(self.num_timesteps)

    def _on_step(self) -> bool:
        return True


def main() -> None:
    parser = peer.parser(__doc__)
    parser.add_argument("--vector", default="dummy", choices=("dummy", "subproc"), help="environments in this process, or one process each")
    task = peer.read(parser)
    torch.set_num_threads(task.threads)
    vector = DummyVecEnv if task.vector == "dummy" else SubprocVecEnv
    envs = VecNormalize(make_vec_env(task.env, n_envs=task.num_envs, seed=task.seed, vec_env_cls=vector), gamma=peer.GAMMA)
    activation = {"tanh": torch.nn.Tanh, "elu": torch.nn.ELU, "relu": torch.nn.ReLU}[task.activation]
    model = PPO(
        "MlpPolicy",
        envs,
        learning_rate=peer.LEARNING_RATE,
        n_steps=task.num_steps,
        batch_size=task.mini_batch_size,
        n_epochs=task.epochs,
        gamma=peer.GAMMA,
        gae_lambda=peer.GAE_LAMBDA,
        clip_range=peer.CLIP_EPSILON,
        ent_coef=0.0,
        vf_coef=peer.VALUE_LOSS_COEF,
        max_grad_norm=peer.MAX_GRAD_NORM,
        policy_kwargs={
            "net_arch": {"pi": task.hidden, "vf": task.hidden},
            "activation_fn": activation,
            "log_std_init": peer.INITIAL_LOG_STD,
        },
        seed=task.seed,
        device="cpu",
    )
    watch = peer.Stopwatch()
    model.learn(task.iterations * task.batch, callback=Marker(watch), log_interval=1)
    watch.iteration_ended(model.num_timesteps)
    envs.close()
    peer.print_result(task, watch, ["stable-baselines3"])


if __name__ == "__main__":
    main()
