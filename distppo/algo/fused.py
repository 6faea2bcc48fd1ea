"""A whole PPO epoch over a Gaussian MLP actor-critic as one compiled function with the backward pass in closed form.

On small networks PPO on a CPU is ruled by call overhead, not arithmetic; here an epoch is one call. It computes what the torch step
computes (a test holds them together over every option), on the same flat vectors.

Activations are stored feature-major, [width, M], so that no product needs a transposed copy and every elementwise loop runs over
contiguous samples. The layout puts the actor's and the critic's first layers side by side: with separate trunks they are one product.

All of it stays in this one file: numba's cache on disk notices a change in the file of the function it has cached, not in the files of
those that it calls.
"""

from __future__ import annotations

import functools
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from distppo.algo.batch import Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.types import ParameterSlot

ACTIVATION_CODES = {"tanh": 0, "relu": 1, "elu": 2}
TANH, RELU, ELU = 0, 1, 2
F32 = np.float32
LOG_SQRT_2PI = F32(0.5 * math.log(2.0 * math.pi))
# fastmath without nnan and ninf: a non-finite gradient must be seen. error_model numpy: a division that may raise ZeroDivisionError
# keeps LLVM from vectorizing its loop, which makes tanh nine times and Adam six times slower.
compiled = functools.partial(njit, cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "arcp", "nsz"})
NUM_STATS = len(EpochStats._fields)
NUM_LOSSES = 5


class Network(NamedTuple):
    """Shape of the actor-critic and places of its layers in the flat vector, as the kernel reads them.

    Attributes:
        widths: [L + 1] int64, observation size, then the hidden widths.
        trunks: 1 (shared) or 2.
        activation: code.
        weights: [L] int64, offset of each hidden layer's weight of the first trunk; the second's follows it.
        biases: [L] int64, likewise.
        actor_head: offset of the weight; the bias follows it.
        critic_head: likewise.
        log_std: offset.
        actions: A.
    """

    widths: np.ndarray
    trunks: int
    activation: int
    weights: np.ndarray
    biases: np.ndarray
    actor_head: int
    critic_head: int
    log_std: int
    actions: int


def network_of(layout: tuple[ParameterSlot, ...], observation_size: int, activation: str) -> Network:
    """Returns the kernel's description of an MLP actor-critic laid out by `distppo.models.layout.mlp_layout`."""
    slots = {slot.name: slot for slot in layout}
    trunk = "trunk" if "trunk.0.weight" in slots else "actor"
    depth = sum(1 for name in slots if name.startswith(f"{trunk}.") and name.endswith(".weight") and "head" not in name)
    hidden = [slots[f"{trunk}.{index}.weight"] for index in range(depth)]
    return Network(
        widths=np.array([observation_size, *(slot.shape[0] for slot in hidden)], np.int64),
        trunks=1 if trunk == "trunk" else 2,
        activation=ACTIVATION_CODES[activation],
        weights=np.array([slot.offset for slot in hidden], np.int64),
        biases=np.array([slots[f"{trunk}.{index}.bias"].offset for index in range(depth)], np.int64),
        actor_head=slots["actor.head.weight"].offset,
        critic_head=slots["critic.head.weight"].offset,
        log_std=slots["log_std"].offset,
        actions=slots["log_std"].shape[0],
    )


def fused_epoch(
    network: Network,
    vectors: OptimizerVectors,
    batch: Batch,
    permutation: np.ndarray,
    mini_batch_size: int,
    coefficients: Coefficients,
    threads: int = 1,
) -> EpochStats:
    """Takes one gradient step per contiguous slice of the permutation, in place.

    Args:
        network: shape and places.
        vectors: changed.
        batch: `previous_log_probs` is changed.
        permutation: [B] int64, B a multiple of `mini_batch_size`.
        mini_batch_size: M.
        coefficients: of this epoch.
        threads: each takes an equal part of every minibatch. The result is that of one thread up to rounding, and the same every time.
    """
    floats = np.array(coefficients[:-1], np.float32)
    state = (vectors.parameters, vectors.first_moment, vectors.second_moment)
    arguments = (network, tuple(batch), permutation, mini_batch_size, floats, coefficients.normalize_advantages)
    if threads == 1:
        sums = _epoch(*state, vectors.gradient_steps, *arguments)
    else:
        sums = _threaded_epoch(state, vectors.gradient_steps, *arguments, threads)
    stats = EpochStats._make(float(x) for x in sums)
    vectors.gradient_steps += int(stats.tried - stats.skipped)
    return stats


@compiled()
def _epoch(parameters, first, second, steps, network, batch, permutation, size, floats, normalize):
    scratch = _scratch(network, size)
    gradient, advantage = np.empty(parameters.shape[0], F32), np.empty(size, F32)
    losses, sums = np.zeros(NUM_LOSSES), np.zeros(NUM_STATS)
    for start in range(0, len(permutation), size):
        rows = permutation[start : start + size]
        _advantages(batch, rows, normalize, advantage)
        _gradient(parameters, network, batch, rows, advantage, size, floats, scratch, gradient, losses)
        steps += _apply(parameters, first, second, gradient, steps, network, floats, losses, sums)
    return sums


def _threaded_epoch(
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
    steps: int,
    network: Network,
    batch: tuple[np.ndarray, ...],
    permutation: np.ndarray,
    size: int,
    floats: np.ndarray,
    normalize: bool,
    threads: int,
) -> np.ndarray:
    """`_epoch` with each minibatch shared out over threads (the compiled functions release the GIL) and their gradients added in order."""
    bounds = np.linspace(0, size, threads + 1).astype(np.int64)
    parts = [slice(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    scratch = [_scratch(network, part.stop - part.start) for part in parts]
    gradients = np.empty((len(parts), len(state[0])), np.float32)
    losses = np.zeros((len(parts), NUM_LOSSES))
    advantage, sums = np.empty(size, np.float32), np.zeros(NUM_STATS)

    def part_gradient(index: int, rows: np.ndarray) -> None:
        part = parts[index]
        _gradient(state[0], network, batch, rows[part], advantage[part], size, floats, scratch[index], gradients[index], losses[index])

    with ThreadPoolExecutor(len(parts)) as pool:
        for start in range(0, len(permutation), size):
            rows = permutation[start : start + size]
            _advantages(batch, rows, normalize, advantage)
            list(pool.map(part_gradient, range(len(parts)), [rows] * len(parts)))
            steps += _apply(*state, gradients.sum(axis=0), steps, network, floats, losses.sum(axis=0), sums)
    return sums


@compiled()
def _scratch(network, size):
    """Arrays for `size` samples: inputs, then hidden activations and their gradients, one block [trunks * width, size] a layer."""
    widths, count = network.widths, network.actions
    starts = np.zeros(len(widths), np.int64)
    for layer in range(len(widths) - 1):
        starts[layer + 1] = starts[layer] + network.trunks * widths[layer + 1] * size
    hidden, deltas = np.empty(starts[-1], F32), np.empty(starts[-1], F32)
    inputs, action = np.empty((widths[0], size), F32), np.empty((count, size), F32)
    mean, mean_delta = np.empty((count, size), F32), np.empty((count, size), F32)
    value, value_delta, log_prob = np.empty(size, F32), np.empty(size, F32), np.empty(size, F32)
    return starts, hidden, deltas, inputs, action, mean, mean_delta, value, value_delta, log_prob


@compiled()
def _advantages(batch, rows, normalize, out):
    """out = the minibatch's advantages, shifted and scaled to mean 0, std 1 if asked."""
    for i in range(len(rows)):
        out[i] = batch[3][rows[i]]
    if normalize:
        _standardize(out)


@compiled()
def _gradient(parameters, network, batch, rows, advantage, size, floats, scratch, gradient, losses):
    """Writes the part of a minibatch of `size` samples that these rows have in its gradient and in its mean losses."""
    observations, actions, log_probs, _, returns, values, previous = batch
    _, clip, entropy_coef, value_coef, value_clip, _, _ = floats
    starts, hidden, deltas, inputs, action, mean, mean_delta, value, value_delta, log_prob = scratch
    count = network.actions
    _gather(observations, rows, inputs)
    _gather(actions, rows, action)
    _forward(parameters, network, inputs, hidden, starts, mean, value)
    log_std = parameters[network.log_std : network.log_std + count]
    log_std_gradient = gradient[network.log_std : network.log_std + count]
    entropy_part = entropy_coef * F32(len(rows)) / F32(size)
    policy_loss, kl, pass_kl, clipped = _policy_gradient(
        action, mean, log_std, rows, log_probs, previous, advantage, size, clip, entropy_part, log_prob, mean_delta, log_std_gradient
    )
    value_loss = _value_gradient(value, rows, returns, values, size, value_clip, value_coef, value_delta)
    _backward(parameters, gradient, network, inputs, hidden, deltas, starts, mean_delta, value_delta)
    losses[0], losses[1], losses[2], losses[3], losses[4] = policy_loss, value_loss, kl, pass_kl, clipped


@compiled()
def _apply(parameters, first, second, gradient, steps, network, floats, losses, sums):
    """Clips the gradient's norm, takes Adam's step `steps` + 1 and adds to the sums; returns 0 if the gradient is not finite, else 1."""
    learning_rate, _, _, _, _, max_norm, epsilon = floats
    norm = math.sqrt(_squared_norm(gradient))
    sums[0] += 1
    if not math.isfinite(norm):
        sums[1] += 1
        return 0
    entropy = 0.0
    for a in range(network.actions):
        entropy += parameters[network.log_std + a] + LOG_SQRT_2PI + 0.5
    sums[2] += losses[0]
    sums[3] += losses[1]
    sums[4] += entropy
    sums[5] += losses[2]
    sums[6] += losses[3]
    sums[7] += losses[4]
    sums[8] += norm
    sums[9] = max(sums[9], norm)
    _adam(parameters, first, second, gradient, F32(min(1.0, max_norm / (norm + 1e-6))), steps + 1, learning_rate, epsilon)
    return 1


@compiled()
def _gather(source, rows, out):
    """out[:, i] = source[rows[i]]."""
    for i in range(len(rows)):
        row = rows[i]
        for j in range(out.shape[0]):
            out[j, i] = source[row, j]


@compiled()
def _block(vector, offset, rows, columns):
    return vector[offset : offset + rows * columns].reshape(rows, columns)


@compiled()
def _forward(parameters, network, inputs, hidden, starts, mean, value):
    widths, trunks = network.widths, network.trunks
    depth, size = len(widths) - 1, inputs.shape[1]
    for layer in range(depth):
        fan_in, width = widths[layer], widths[layer + 1]
        if layer == 0:
            weight = _block(parameters, network.weights[0], trunks * width, fan_in)
            np.dot(weight, inputs, _block(hidden, starts[0], trunks * width, size))
        else:
            for k in range(trunks):
                weight = _block(parameters, network.weights[layer] + k * width * fan_in, width, fan_in)
                below = _block(hidden, starts[layer - 1] + k * fan_in * size, fan_in, size)
                np.dot(weight, below, _block(hidden, starts[layer] + k * width * size, width, size))
        bias = parameters[network.biases[layer] : network.biases[layer] + trunks * width]
        _activate(_block(hidden, starts[layer], trunks * width, size), bias, network.activation)
    width = widths[depth]
    for_actor, for_critic = inputs, inputs
    if depth > 0:
        for_actor = _block(hidden, starts[depth - 1], width, size)
        for_critic = _block(hidden, starts[depth - 1] + (trunks - 1) * width * size, width, size)
    count = mean.shape[0]
    head = network.actor_head
    np.dot(_block(parameters, head, count, width), for_actor, mean)
    for a in range(count):
        bias_a = parameters[head + count * width + a]
        for i in range(size):
            mean[a, i] += bias_a
    head = network.critic_head
    np.dot(parameters[head : head + width], for_critic, value)
    bias_v = parameters[head + width]
    for i in range(size):
        value[i] += bias_v


@compiled()
def _backward(parameters, gradient, network, inputs, hidden, deltas, starts, mean_delta, value_delta):
    widths, trunks = network.widths, network.trunks
    depth, size = len(widths) - 1, inputs.shape[1]
    width, count = widths[depth], mean_delta.shape[0]
    for_actor, for_critic = inputs, inputs
    if depth > 0:
        for_actor = _block(hidden, starts[depth - 1], width, size)
        for_critic = _block(hidden, starts[depth - 1] + (trunks - 1) * width * size, width, size)
    actor, critic = network.actor_head, network.critic_head
    np.dot(mean_delta, for_actor.T, _block(gradient, actor, count, width))
    _row_sums(mean_delta, gradient[actor + count * width : actor + count * width + count])
    np.dot(for_critic, value_delta, gradient[critic : critic + width])
    gradient[critic + width] = value_delta.sum()
    if depth == 0:
        return
    np.dot(_block(parameters, actor, count, width).T, mean_delta, _block(deltas, starts[depth - 1], width, size))
    _outer(
        parameters[critic : critic + width],
        value_delta,
        _block(deltas, starts[depth - 1] + (trunks - 1) * width * size, width, size),
        trunks == 1,
    )
    for layer in range(depth - 1, -1, -1):
        fan_in, width = widths[layer], widths[layer + 1]
        delta = _block(deltas, starts[layer], trunks * width, size)
        bias = gradient[network.biases[layer] : network.biases[layer] + trunks * width]
        _deactivate(delta, _block(hidden, starts[layer], trunks * width, size), network.activation, bias)
        if layer == 0:
            np.dot(delta, inputs.T, _block(gradient, network.weights[0], trunks * width, fan_in))
            continue
        for k in range(trunks):
            delta_k = _block(deltas, starts[layer] + k * width * size, width, size)
            below = _block(hidden, starts[layer - 1] + k * fan_in * size, fan_in, size)
            offset = network.weights[layer] + k * width * fan_in
            np.dot(delta_k, below.T, _block(gradient, offset, width, fan_in))
            np.dot(
                _block(parameters, offset, width, fan_in).T, delta_k, _block(deltas, starts[layer - 1] + k * fan_in * size, fan_in, size)
            )


@compiled()
def _outer(column, row, out, add):
    for j in range(out.shape[0]):
        factor = column[j]
        if add:
            for i in range(out.shape[1]):
                out[j, i] += factor * row[i]
        else:
            for i in range(out.shape[1]):
                out[j, i] = factor * row[i]


@compiled()
def _row_sums(matrix, out):
    for j in range(matrix.shape[0]):
        total = F32(0)
        for i in range(matrix.shape[1]):
            total += matrix[j, i]
        out[j] = total


@compiled()
def _activate(block, bias, code):
    for j in range(block.shape[0]):
        row, b = block[j], bias[j]
        if code == TANH:
            for i in range(len(row)):
                row[i] = _tanh(row[i] + b)
        elif code == RELU:
            for i in range(len(row)):
                row[i] = max(row[i] + b, F32(0))
        else:
            for i in range(len(row)):
                row[i] = _elu(row[i] + b)


@compiled()
def _deactivate(delta, output, code, bias_gradient):
    """delta *= the activation's derivative, from its output; the row sums are the bias's gradient."""
    for j in range(delta.shape[0]):
        total = F32(0)
        d, h = delta[j], output[j]
        if code == TANH:
            for i in range(len(d)):
                x = d[i] * (F32(1) - h[i] * h[i])
                d[i] = x
                total += x
        elif code == RELU:
            for i in range(len(d)):
                x = d[i] if h[i] > F32(0) else F32(0)
                d[i] = x
                total += x
        else:
            for i in range(len(d)):
                x = d[i] * (F32(1) + min(h[i], F32(0)))
                d[i] = x
                total += x
        bias_gradient[j] = total


@compiled(inline="always")
def _tanh(x):
    """tanh by a rational minimax approximation (odd degree 13 over even degree 6), within 4 float32 ulp; LLVM vectorizes it."""
    x = min(max(x, F32(-7.90531110763549805)), F32(7.90531110763549805))
    s = x * x
    p = F32(-2.76076847742355e-16)
    p = p * s + F32(2.00018790482477e-13)
    p = p * s + F32(-8.60467152213735e-11)
    p = p * s + F32(5.12229709037114e-08)
    p = p * s + F32(1.48572235717979e-05)
    p = p * s + F32(6.37261928875436e-04)
    p = p * s + F32(4.89352455891786e-03)
    q = F32(1.19825839466702e-06)
    q = q * s + F32(1.18534705686654e-04)
    q = q * s + F32(2.26843463243900e-03)
    q = q * s + F32(4.89352518554385e-03)
    return x * p / q


@compiled(inline="always")
def _elu(x):
    """x where x > 0, else exp(x) - 1, within 2 float32 ulp: a Taylor polynomial of expm1(x / 32), then expm1(2a) = y (2 + y) five times."""
    a = max(min(x, F32(0)), F32(-32)) * F32(1 / 32)
    p = F32(1 / 5040)
    p = p * a + F32(1 / 720)
    p = p * a + F32(1 / 120)
    p = p * a + F32(1 / 24)
    p = p * a + F32(1 / 6)
    p = p * a + F32(1 / 2)
    y = p * a * a + a
    y = y * (F32(2) + y)
    y = y * (F32(2) + y)
    y = y * (F32(2) + y)
    y = y * (F32(2) + y)
    y = y * (F32(2) + y)
    return max(x, F32(0)) + y


@compiled()
def _standardize(advantage):
    size = len(advantage)
    mean = F32(0)
    for i in range(size):
        mean += advantage[i]
    mean /= F32(size)
    square = F32(0)
    for i in range(size):
        square += (advantage[i] - mean) ** 2
    scale = F32(1) / (F32(math.sqrt(square / F32(size - 1))) + F32(1e-8))
    for i in range(size):
        advantage[i] = (advantage[i] - mean) * scale


@compiled()
def _policy_gradient(
    action, mean, log_std, rows, old_log_probs, previous, advantage, size, clip, entropy_coef, log_prob, mean_delta, log_std_gradient
):
    """Writes d loss / d mean and d loss / d log_std; returns these rows' part of the surrogate loss, both KLs and the clip fraction."""
    count, samples = action.shape
    constant = F32(0)
    for a in range(count):
        constant -= log_std[a] + LOG_SQRT_2PI
    for i in range(samples):
        log_prob[i] = constant
    for a in range(count):
        inverse_std = F32(math.exp(-log_std[a]))
        for i in range(samples):
            z = (action[a, i] - mean[a, i]) * inverse_std
            mean_delta[a, i] = z
            log_prob[i] -= F32(0.5) * z * z
    loss, kl, pass_kl, clipped = 0.0, 0.0, 0.0, 0.0
    for i in range(samples):
        row = rows[i]
        log_ratio = log_prob[i] - old_log_probs[row]
        excess = F32(math.expm1(log_ratio))
        kl += excess - log_ratio
        step = log_prob[i] - previous[row]
        pass_kl += F32(math.expm1(step)) - step
        previous[row] = log_prob[i]
        clipped += abs(excess) > clip
        ratio = F32(1) + excess
        unclipped_objective = ratio * advantage[i]
        clipped_objective = min(max(ratio, F32(1) - clip), F32(1) + clip) * advantage[i]
        loss -= min(unclipped_objective, clipped_objective)
        # From here on log_prob holds d loss / d log_prob.
        # (Written so that a NaN takes the branch that keeps it.)
        log_prob[i] = F32(0) if unclipped_objective > clipped_objective else -unclipped_objective / F32(size)
    for a in range(count):
        inverse_std = F32(math.exp(-log_std[a]))
        total = F32(0)
        for i in range(samples):
            z = mean_delta[a, i]
            mean_delta[a, i] = log_prob[i] * z * inverse_std
            total += log_prob[i] * (z * z - F32(1))
        log_std_gradient[a] = total - entropy_coef
    return loss / size, kl / size, pass_kl / size, clipped / size


@compiled()
def _value_gradient(value, rows, returns, old_values, size, value_clip, value_coef, value_delta):
    """Writes d loss / d value; returns these rows' part of the mean (clipped) squared error."""
    loss = 0.0
    factor = F32(2) * value_coef / F32(size)
    for i in range(len(value)):
        target, old = returns[rows[i]], old_values[rows[i]]
        error = value[i] - target
        moved = old + min(max(value[i] - old, -value_clip), value_clip) - target
        # Inside the bound both predictions are the same number, up to rounding. (And a NaN takes the branch that keeps it.)
        if abs(value[i] - old) > value_clip and error * error < moved * moved:
            value_delta[i] = F32(0)
            loss += moved * moved
        else:
            value_delta[i] = factor * error
            loss += error * error
    return loss / size


@compiled()
def _squared_norm(gradient):
    total = F32(0)
    for i in range(len(gradient)):
        total += gradient[i] * gradient[i]
    return total


@compiled()
def _adam(parameters, first, second, gradient, scale, step, learning_rate, epsilon):
    """Kingma, Ba: "Adam" (2014), with the bias corrections arranged as in torch.optim.Adam."""
    step_size = F32(learning_rate / (1.0 - 0.9**step))
    correction = F32(1.0 / math.sqrt(1.0 - 0.999**step))
    for i in range(len(parameters)):
        g = gradient[i] * scale
        m = F32(0.9) * first[i] + F32(0.1) * g
        v = F32(0.999) * second[i] + F32(0.001) * g * g
        first[i], second[i] = m, v
        parameters[i] -= step_size * m / (F32(math.sqrt(v)) * correction + epsilon)
