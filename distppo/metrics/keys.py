"""Every metric and event, in one sentence each. `docs/metrics.md` repeats them and says what a bad value means."""

from __future__ import annotations

STEPS = "time/total_timesteps"

KEYS: dict[str, str] = {
    "rollout/ep_rew_mean": "Mean return (raw rewards, undiscounted) of the last 100 finished episodes; absent until one has ended.",
    "rollout/ep_len_mean": "Mean length of those episodes.",
    "rollout/episodes": "Episodes that ended in this iteration.",
    "train/approx_kl": (
        "Schulman's k3 estimate of the KL between the collecting (in `overlap`: the current) policy as the update began and the "
        "trained one, mean over the whole update."
    ),
    "train/clip_fraction": "Share of samples whose probability ratio was outside the clip range, mean over the whole update.",
    "train/policy_gradient_loss": "Clipped surrogate loss, mean over the whole update.",
    "train/value_loss": "Squared error of the value prediction, in the critic's own units, mean over the whole update.",
    "train/entropy_loss": "Minus the mean entropy of the action distribution.",
    "train/loss": "What was minimized: policy loss + value_loss_coef x value loss + entropy_coef x entropy loss.",
    "train/explained_variance": "1 - Var(return - prediction) / Var(return), with the predictions from before the update.",
    "train/learning_rate": "Step size of the optimizer, as the update ended.",
    "train/clip_range": "The clip_epsilon in force.",
    "train/std": "Standard deviation of the policy's actions before clipping, mean over the action dimensions.",
    "train/grad_norm": "Global norm of the gradient before clipping, mean over the gradient steps of the update.",
    "train/grad_norm_max": "Largest such norm in the update.",
    "train/epochs": "Epochs done in this update; fewer than configured when target_kl stopped it.",
    "train/n_updates": "Epochs done since the start of the run, which is what Stable-Baselines3 counts under this name.",
    "train/gradient_steps": "Minibatches learned from since the start of the run.",
    "train/skipped_steps": "Gradient steps of this update that were skipped because the loss or the gradient was not finite.",
    "value/mean": "Mean value prediction over the batch, before the update, in the raw units of the scaled rewards.",
    "value/return_mean": "Mean of the lambda-returns the critic is regressed on, in the same units.",
    "value/return_std": "Standard deviation of those returns.",
    "value/advantage_std": "Standard deviation of the advantages, before they are normalized.",
    "time/fps": "Env steps per second since this process started training.",
    "time/fps_iteration": "Env steps per second of this iteration, everything included.",
    "time/iterations": "Iterations since the start of the run.",
    "time/time_elapsed": "Wall time spent training since the start of the run, over all processes that continued it.",
    "time/total_timesteps": "Env steps learned from since the start of the run; the x-axis of every plot.",
    "time/collect": "Time of this iteration spent waiting for rollouts.",
    "time/update": "Time of this iteration spent in the learner's update.",
    "time/broadcast": "Time of this iteration spent making the new weights available to the workers.",
    "time/evaluate": "Time of this iteration spent in evaluation.",
    "time/checkpoint": "Time of this iteration spent saving checkpoints.",
    "time/other": "The rest of this iteration: metrics, display, the loop itself.",
    "dist/workers": "Rollout workers that contributed to this iteration.",
    "dist/staleness": "Policy version being trained minus the version that collected the rollouts.",
    "dist/policy_version": "Updates behind the current weights.",
    "dist/ratio_error": "Largest |ratio - 1| of learner to worker action probabilities, on a sample, before the first gradient step.",
    "dist/worker_seconds_min": "Collection time inside the fastest worker.",
    "dist/worker_seconds_mean": "Collection time inside the workers, mean.",
    "dist/worker_seconds_max": "Collection time inside the slowest worker.",
    "dist/worker_fps": "Env steps per second of one worker while it collects.",
    "dist/learner_seconds": "Time of the update inside the learner, without transport.",
    "dist/rollout_bytes": "Size of the iteration's rollouts, all workers together.",
    "dist/reward_scale": "Standard deviation of the discounted return, which the rewards are divided by.",
    "dist/obs_count": "Observations behind the normalizer's mean and std; equals time/total_timesteps.",
    "dist/restarts": "Workers replaced since this process started training.",
    "faults/env_restarts": "Environments made anew because their code had raised. Faults count from the start of this process.",
    "faults/nonfinite": "Environments made anew because they had given a number that is not finite.",
    "faults/skipped_updates": "Updates whose weights were dropped because a loss or gradient was not finite.",
    "faults/episodes_restarted": "Environments that had to start a new episode, because their state could not be carried over.",
    "eval/mean_reward": "Mean return of the evaluation's episodes: separate environments, deterministic actions, frozen statistics.",
    "eval/std_reward": "Standard deviation of those returns.",
    "eval/mean_ep_length": "Mean length of the evaluation's episodes.",
    "eval/episodes": "Episodes of the evaluation.",
}

EVENTS: dict[str, str] = {
    "started": "Training began from nothing.",
    "ready": "Workers and learner have started.",
    "layout_changed": "Training goes on with another number of workers, so no longer to the bit.",
    "resumed": "Training went on from a checkpoint with this many env_steps; rows above it were rolled back.",
    "evaluated": "An evaluation ended.",
    "checkpoint": "A checkpoint was saved.",
    "checkpoint_failed": "A checkpoint could not be saved; the one before is intact and training went on.",
    "fault": "Something went wrong and training goes on: what, where, why, and what was done.",
    "recovered": "What had failed has been done after all, this many seconds after it failed first.",
    "finished": "Training reached total_timesteps.",
    "interrupted": "A signal ended training, after a checkpoint.",
    "error": "Training ended with an error.",
}

FAULTS: dict[str, str] = {
    "env_error": "An environment's code raised; the environment was made anew, and its part of the fragment collected again.",
    "env_nonfinite": "An environment gave a number that is not finite; as above.",
    "update_skipped": "A loss or gradient was not finite; weights and optimizer are as they were before the update.",
    "episode_restarted": "An environment's state could not be carried over; it has started a new episode.",
}
"""Every kind of fault event, in one sentence each."""

FAULT_METRICS: dict[str, str] = {
    "env_error": "faults/env_restarts",
    "env_nonfinite": "faults/nonfinite",
    "update_skipped": "faults/skipped_updates",
    "episode_restarted": "faults/episodes_restarted",
}
"""The metric that counts each kind."""
