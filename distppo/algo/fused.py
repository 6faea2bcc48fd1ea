"""A whole PPO epoch over an MLP actor-critic as one compiled function with the backward pass in closed form.

On small networks PPO on a CPU is ruled by call overhead, not arithmetic; here an epoch is one call. It computes what the torch step
computes (a test holds them together over every option), on the same flat vectors.

Activations are stored feature-major, [width, M], so that no product needs a transposed copy and every elementwise loop runs over
contiguous samples.

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
from numba import njit, types
from numba.extending import intrinsic

from distppo.algo.batch import Batch, Coefficients, EpochStats, OptimizerVectors
from distppo.config.schema import NetworkConfig
from distppo.types import EnvSpec, ParameterSlot

ACTIVATION_CODES = {"tanh": 0, "relu": 1, "elu": 2}
TANH, RELU, ELU = 0, 1, 2
F32 = np.float32
LAYER_NORM_EPSILON = F32(1e-5)
LOG_SQRT_2PI = F32(0.5 * math.log(2.0 * math.pi))
# fastmath without nnan and ninf: a non-finite gradient must be seen. error_model numpy: a division that may raise ZeroDivisionError
# keeps LLVM from vectorizing its loop, which makes tanh nine times and Adam six times slower.
compiled = functools.partial(njit, cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "arcp", "nsz"})
NUM_STATS = len(EpochStats._fields)
NUM_LOSSES = 6
CACHE_LINE = 16
"""Numbers of 8 bytes so far apart that no two share a line or its neighbour."""
GO, CLAIMED, DONE = 0, CACHE_LINE, 2 * CACHE_LINE
"""Words the two threads speak by: minibatches begun (-1: no more), second towers begun by either, second towers done by the helper."""
NORM, STEP, VALUE_LOSS, SQUARE = 0, 1, 2, 3
"""What they tell each other: the last gradient's norm and its Adam step; the critic's loss and squared norm of this one's."""
_HELPER = ThreadPoolExecutor(1, "fused-epoch")
PATIENCE = 10_000
"""Looks at the other thread's progress, some ten microseconds, before the core is offered to somebody else."""
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


class Network(NamedTuple):
    """Shape of the actor-critic and places of its layers in the flat vector, as the kernel reads them.

    Its towers learn from nothing of each other but the norm of the whole gradient: with separate trunks there are two, the actor's and the
    critic's; with a shared trunk there is one.

    Attributes:
        widths: [L + 1] int64, observation size, then the hidden widths.
        towers: 1 or 2.
        activation: code.
        layer_norm: 1 where every layer is normalized, else 0.
        weights: [2, L] int64, offset of each hidden layer's weight in either tower.
        biases: [2, L] int64, likewise.
        scales: [2, L] int64, likewise, of the layer normalization; [2, 0] without it.
        shifts: [2, L] int64, likewise.
        actor_head: offset of the weight; the bias follows it.
        critic_head: likewise.
        log_std: offset; of no meaning where actions are choices.
        actions: A.
        choices: [A] int64, number of choices of each action; [0] where actions are continuous.
        outputs: K, rows of the actor's head.
        pieces: [2, K, 2] int64, (start, stop) of what either tower owns of the flat vector; empty ones fill up.
    """

    widths: np.ndarray
    towers: int
    activation: int
    layer_norm: int
    weights: np.ndarray
    biases: np.ndarray
    scales: np.ndarray
    shifts: np.ndarray
    actor_head: int
    critic_head: int
    log_std: int
    actions: int
    choices: np.ndarray
    outputs: int
    pieces: np.ndarray


def network_of(layout: tuple[ParameterSlot, ...], env: EnvSpec, network: NetworkConfig) -> Network:
    """Returns the kernel's description of an MLP actor-critic.

    Args:
        layout: as `distppo.models.layout.network_layout` makes it.
        env: observation and action space.
        network: settings with nothing left to auto.
    """
    slots = {slot.name: slot for slot in layout}
    trunks = ["trunk"] if "trunk.0.weight" in slots else ["actor", "critic"]
    depth = sum(1 for name in slots if name.startswith(f"{trunks[0]}.") and name.endswith(".weight") and "head" not in name)
    kinds = ("weight", "bias", "scale", "shift") if network.layer_norm else ("weight", "bias")
    offsets = {
        kind: np.array([[slots[f"{trunk}.{index}.{kind}"].offset for index in range(depth)] for trunk in (trunks * 2)[:2]], np.int64)
        for kind in kinds
    }
    none = np.empty(0, np.int64)
    return Network(
        widths=np.array([env.observation_size, *(slots[f"{trunks[0]}.{index}.weight"].shape[0] for index in range(depth))], np.int64),
        towers=len(trunks),
        activation=ACTIVATION_CODES[network.activation or "tanh"],
        layer_norm=int(network.layer_norm),
        weights=offsets["weight"].reshape(2, depth),
        biases=offsets["bias"].reshape(2, depth),
        scales=offsets.get("scale", none).reshape(2, -1),
        shifts=offsets.get("shift", none).reshape(2, -1),
        actor_head=slots["actor.head.weight"].offset,
        critic_head=slots["critic.head.weight"].offset,
        log_std=slots["log_std"].offset if "log_std" in slots else 0,
        actions=env.action_size,
        choices=np.array(env.action_choices, np.int64),
        outputs=env.action_outputs,
        pieces=_pieces(layout, len(trunks)),
    )


def _pieces(layout: tuple[ParameterSlot, ...], towers: int) -> np.ndarray:
    """Returns `Network.pieces`, neighbours joined."""
    owned: list[list[tuple[int, int]]] = [[], []]
    for slot in layout:
        pieces = owned[1 if towers == 2 and slot.name.startswith("critic") else 0]
        start, stop = slot.offset, slot.offset + math.prod(slot.shape)
        if pieces and pieces[-1][1] == start:
            start, _ = pieces.pop()
        pieces.append((start, stop))
    longest = max(len(pieces) for pieces in owned)
    return np.array([pieces + [(0, 0)] * (longest - len(pieces)) for pieces in owned], np.int64)


def cache_folder() -> str:
    """Returns where numba keeps the compiled kernels."""
    return str(_epoch.stats.cache_path)


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
        threads: where there are two towers, a second thread helps with the critic's, and the bits are those of one thread. Otherwise each
            thread takes an equal part of every minibatch; the result is then that of one thread up to rounding, and the same every time.
    """
    floats = np.array(coefficients[:-1], np.float32)
    state = (vectors.parameters, vectors.first_moment, vectors.second_moment)
    arguments = (network, tuple(batch), permutation, mini_batch_size, floats, coefficients.normalize_advantages)
    if threads == 1 or (threads == 2 and network.towers == 2):
        sums = _towers_epoch(state, vectors.gradient_steps, *arguments, helped=threads == 2)
    else:
        sums = _threaded_epoch(state, vectors.gradient_steps, *arguments, threads)
    stats = EpochStats._make(float(x) for x in sums)
    vectors.gradient_steps += int(stats.tried - stats.skipped)
    return stats


def _towers_epoch(
    state: tuple[np.ndarray, np.ndarray, np.ndarray],
    steps: int,
    network: Network,
    batch: tuple[np.ndarray, ...],
    permutation: np.ndarray,
    size: int,
    floats: np.ndarray,
    normalize: bool,
    *,
    helped: bool,
) -> np.ndarray:
    """Runs `_epoch`, where `helped` with a thread that takes the critic's tower of a minibatch whenever it comes in time.

    It may be late or never come, as its core may have other work: then the epoch's own thread does what is left.
    """
    shared = (*state, np.empty_like(state[0]), np.zeros(3 * CACHE_LINE, np.int64), np.zeros(4))
    if helped:
        _HELPER.submit(_help, shared, network, batch, permutation, size, floats)
    sums: np.ndarray = _epoch(shared, steps, network, batch, permutation, size, floats, normalize)
    return sums


@compiled()
def _epoch(shared, steps, network, batch, permutation, size, floats, normalize):
    parameters, first, second, gradient, words, letter = shared
    scratch, advantage = _scratch(network, size), np.empty(size, F32)
    losses, sums = np.zeros(NUM_LOSSES), np.zeros(NUM_STATS)
    letter[NORM] = math.inf
    for number in range(len(permutation) // size):
        rows = permutation[number * size : (number + 1) * size]
        _store_release(words, GO, number + 1)
        _advantages(batch, rows, normalize, advantage)
        _gather(batch[0], rows, scratch[0])
        _tower_gradient(0, parameters, network, batch, rows, advantage, size, floats, scratch, gradient, losses)
        square = _squared_norm(gradient, network.pieces[0])
        if network.towers == 2:
            if _claim(words, number):
                _second_tower(shared, network, batch, rows, size, floats, scratch)
            else:
                _await(words, DONE, number + 1)
            losses[1] = letter[VALUE_LOSS]
            square += F32(letter[SQUARE])
        norm = math.sqrt(square)
        finite = _count(norm, losses, sums)
        steps += finite
        letter[NORM], letter[STEP] = norm, steps
        if finite:
            _adam(parameters, first, second, gradient, network.pieces[0], norm, steps, floats)
    _store_release(words, GO, -1)
    if math.isfinite(letter[NORM]):
        _adam(parameters, first, second, gradient, network.pieces[1], letter[NORM], steps, floats)
    return sums


@compiled()
def _second_tower(shared, network, batch, rows, size, floats, scratch):
    """Takes the critic's part of the last minibatch's Adam step, then of this one's gradient, from the inputs in the scratch.

    In this order all that is the critic's stays in one core's cache for as long as one thread does it.
    """
    parameters, first, second, gradient, _, letter = shared
    if math.isfinite(letter[NORM]):
        _adam(parameters, first, second, gradient, network.pieces[1], letter[NORM], letter[STEP], floats)
    losses, no_advantage = np.zeros(NUM_LOSSES), np.empty(0, F32)
    _tower_gradient(1, parameters, network, batch, rows, no_advantage, size, floats, scratch, gradient, losses)
    letter[VALUE_LOSS], letter[SQUARE] = losses[1], _squared_norm(gradient, network.pieces[1])


@compiled()
def _help(shared, network, batch, permutation, size, floats):
    """Takes the second tower of every minibatch that nobody has begun, until there are no more."""
    words, scratch, number = shared[4], _scratch(network, size), 0
    while True:
        _await(words, GO, number + 1)
        number = _load_acquire(words, GO) - 1
        if number < 0:
            return
        if _claim(words, number):
            rows = permutation[number * size : (number + 1) * size]
            _gather(batch[0], rows, scratch[0])
            _second_tower(shared, network, batch, rows, size, floats, scratch)
            _store_release(words, DONE, number + 1)
        number += 1


@intrinsic
def _store_release(typing_context, array, index, value):
    """array[index] = value, visible to another thread after everything written before."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store_atomic(arguments[2], builder.gep(data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def _load_acquire(typing_context, array, index):
    """array[index], read before everything that is read after."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(builder.gep(data, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.int64), code


@intrinsic
def _compare_and_swap(typing_context, array, index, expected, value):
    """Sets array[index] to value if it is `expected`, and returns whether it was, as one step."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.gep(data, [arguments[1]])
        return builder.extract_value(builder.cmpxchg(pointer, arguments[2], arguments[3], "acq_rel", "acquire"), 1)

    return types.boolean(array, types.int64, types.int64, types.int64), code


@compiled()
def _claim(words, number):
    """Returns whether minibatch `number`'s second tower is the caller's to do: of the two threads, one gets True."""
    return _compare_and_swap(words, CLAIMED, number, number + 1)


@compiled()
def _await(words, index, value):
    """Returns when words[index] is at least this, or negative."""
    looks = 0
    while True:
        seen = _load_acquire(words, index)
        if seen >= value or seen < 0:
            return
        looks += 1
        if looks > PATIENCE:  # another process has the other thread's core
            _sched_yield()


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
    """Arrays for `size` samples of one tower: inputs, then hidden activations and their gradients, one block [width, size] a layer."""
    widths, count = network.widths, network.outputs
    starts = np.zeros(len(widths), np.int64)
    for layer in range(len(widths) - 1):
        starts[layer + 1] = starts[layer] + widths[layer + 1] * size
    hidden, deltas = np.empty(starts[-1], F32), np.empty(starts[-1], F32)
    units = np.empty(starts[-1] * network.layer_norm, F32)
    deviations = np.empty((len(widths) - 1, size * network.layer_norm), F32)
    inputs, action = np.empty((widths[0], size), F32), np.empty((network.actions, size), F32)
    mean, mean_delta = np.empty((count, size), F32), np.empty((count, size), F32)
    value, value_delta, log_prob = np.empty(size, F32), np.empty(size, F32), np.empty(size, F32)
    return inputs, starts, hidden, deltas, units, deviations, action, mean, mean_delta, value, value_delta, log_prob


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
    _gather(batch[0], rows, scratch[0])
    for tower in range(network.towers):
        _tower_gradient(tower, parameters, network, batch, rows, advantage, size, floats, scratch, gradient, losses)


@compiled()
def _tower_gradient(tower, parameters, network, batch, rows, advantage, size, floats, scratch, gradient, losses):
    """Writes what `_gradient` does for the parameters and losses of one tower, from the inputs in its scratch."""
    _, actions, log_probs, _, returns, values, previous = batch
    _, clip, penalized, entropy_coef, value_coef, value_clip, _, _ = floats
    inputs, starts, hidden, deltas, units, deviations, action, mean, mean_delta, value, value_delta, log_prob = scratch
    acts, criticizes = tower == 0, tower == network.towers - 1
    top = _forward(parameters, network, tower, inputs, hidden, units, deviations, starts)
    width, count = network.widths[-1], network.outputs
    if acts:
        head = network.actor_head
        _gather(actions, rows, action)
        np.dot(_block(parameters, head, count, width), top, mean)
        _add_bias(mean, parameters[head + count * width : head + count * width + count])
        if len(network.choices) > 0:
            losses[2] = _choose(action, mean, network.choices, log_prob, mean_delta) / size
            losses[0], losses[3], losses[4], losses[5] = _ratio_gradient(
                log_prob, rows, log_probs, previous, advantage, size, clip, penalized
            )
            _categorical_gradient(action, mean, network.choices, log_prob, entropy_coef / F32(size), mean_delta)
        else:
            part = F32(len(rows)) / F32(size)
            first, last = network.log_std, network.log_std + count
            losses[2] = part * _standardize_actions(action, mean, parameters[first:last], log_prob, mean_delta)
            losses[0], losses[3], losses[4], losses[5] = _ratio_gradient(
                log_prob, rows, log_probs, previous, advantage, size, clip, penalized
            )
            _gaussian_gradient(parameters[first:last], log_prob, entropy_coef * part, mean_delta, gradient[first:last])
        np.dot(mean_delta, top.T, _block(gradient, head, count, width))
        _row_sums(mean_delta, gradient[head + count * width : head + count * width + count])
    if criticizes:
        head = network.critic_head
        np.dot(parameters[head : head + width], top, value)
        bias = parameters[head + width]
        for i in range(len(value)):
            value[i] += bias
        losses[1] = _value_gradient(value, rows, returns, values, size, value_clip, value_coef, value_delta)
        np.dot(top, value_delta, gradient[head : head + width])
        gradient[head + width] = value_delta.sum()
    depth = len(network.widths) - 1
    if depth > 0:
        delta = _block(deltas, starts[depth - 1], width, len(rows))
        if acts:
            np.dot(_block(parameters, network.actor_head, count, width).T, mean_delta, delta)
        if criticizes:
            _outer(parameters[network.critic_head : network.critic_head + width], value_delta, delta, acts)
        _backward(parameters, gradient, network, tower, inputs, hidden, deltas, units, deviations, starts)


@compiled()
def _apply(parameters, first, second, gradient, steps, network, floats, losses, sums):
    """Clips the gradient's norm, takes Adam's step `steps` + 1 and adds to the sums; returns 0 if the gradient is not finite, else 1."""
    square = F32(0)
    for tower in range(network.towers):
        square += _squared_norm(gradient, network.pieces[tower])
    norm = math.sqrt(square)
    finite = _count(norm, losses, sums)
    if finite:
        for tower in range(network.towers):
            _adam(parameters, first, second, gradient, network.pieces[tower], norm, steps + 1, floats)
    return finite


@compiled()
def _count(norm, losses, sums):
    """Adds a minibatch to the sums; returns 0 if the gradient is not finite, else 1."""
    sums[0] += 1
    if not math.isfinite(norm):
        sums[1] += 1
        return 0
    for index in range(NUM_LOSSES):
        sums[2 + index] += losses[index]
    sums[8] += norm
    sums[9] = max(sums[9], norm)
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
def _forward(parameters, network, tower, inputs, hidden, units, deviations, starts):
    """Fills a tower's hidden activations; returns the last, which without hidden layers is the input."""
    widths, size = network.widths, inputs.shape[1]
    below = inputs
    for layer in range(len(widths) - 1):
        fan_in, width = widths[layer], widths[layer + 1]
        above = _block(hidden, starts[layer], width, size)
        np.dot(_block(parameters, network.weights[tower, layer], width, fan_in), below, above)
        bias = network.biases[tower, layer]
        if network.layer_norm:
            scale = network.scales[tower, layer]
            unit = _block(units, starts[layer], width, size)
            _normalize(above, unit, parameters[bias : bias + width], parameters[scale : scale + width], deviations[layer])
            bias = network.shifts[tower, layer]
        _activate(above, parameters[bias : bias + width], network.activation)
        below = above
    return below


@compiled()
def _backward(parameters, gradient, network, tower, inputs, hidden, deltas, units, deviations, starts):
    """Writes the gradient of a tower's hidden layers from the delta of its last activations."""
    widths, size = network.widths, inputs.shape[1]
    for layer in range(len(widths) - 2, -1, -1):
        fan_in, width = widths[layer], widths[layer + 1]
        weight, bias = network.weights[tower, layer], network.biases[tower, layer]
        delta = _block(deltas, starts[layer], width, size)
        added = network.shifts[tower, layer] if network.layer_norm else bias
        _deactivate(delta, _block(hidden, starts[layer], width, size), network.activation, gradient[added : added + width])
        if network.layer_norm:
            scale = network.scales[tower, layer]
            unit = _block(units, starts[layer], width, size)
            scales, scale_gradient = parameters[scale : scale + width], gradient[scale : scale + width]
            _denormalize(delta, unit, scales, deviations[layer], gradient[bias : bias + width], scale_gradient)
        if layer == 0:
            np.dot(delta, inputs.T, _block(gradient, weight, width, fan_in))
            continue
        np.dot(delta, _block(hidden, starts[layer - 1], fan_in, size).T, _block(gradient, weight, width, fan_in))
        np.dot(_block(parameters, weight, width, fan_in).T, delta, _block(deltas, starts[layer - 1], fan_in, size))


@compiled()
def _add_bias(block, bias):
    for j in range(block.shape[0]):
        for i in range(block.shape[1]):
            block[j, i] += bias[j]


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
def _standardize_actions(action, mean, log_std, log_prob, mean_delta):
    """Writes the log-probs and, into `mean_delta`, (action - mean) / std; returns the entropy."""
    count, samples = action.shape
    constant = F32(0)
    entropy = 0.0
    for a in range(count):
        constant -= log_std[a] + LOG_SQRT_2PI
        entropy += log_std[a] + LOG_SQRT_2PI + 0.5
    for i in range(samples):
        log_prob[i] = constant
    for a in range(count):
        inverse_std = F32(math.exp(-log_std[a]))
        for i in range(samples):
            z = (action[a, i] - mean[a, i]) * inverse_std
            mean_delta[a, i] = z
            log_prob[i] -= F32(0.5) * z * z
    return entropy


@compiled()
def _choose(action, logits, choices, log_prob, probability):
    """Turns logits into log-probabilities, writes the probabilities and the log-probs of the actions; returns the sum of the entropies."""
    samples = action.shape[1]
    entropy = 0.0
    for i in range(samples):
        log_prob[i] = F32(0)
    first = 0
    for a in range(len(choices)):
        last = first + choices[a]
        for i in range(samples):
            largest = logits[first, i]
            for j in range(first + 1, last):
                largest = max(largest, logits[j, i])
            total = F32(0)
            for j in range(first, last):
                total += F32(math.exp(logits[j, i] - largest))
            shift = largest + F32(math.log(total))
            for j in range(first, last):
                logits[j, i] -= shift
                probability[j, i] = F32(math.exp(logits[j, i]))
                entropy -= probability[j, i] * logits[j, i]
            log_prob[i] += logits[first + int(action[a, i]), i]
        first = last
    return entropy


@compiled()
def _ratio_gradient(log_prob, rows, old_log_probs, previous, advantage, size, clip, penalized):
    """Turns log-probs into d loss / d log_prob; returns these rows' part of the surrogate loss, both KLs and the clip fraction."""
    loss, kl, pass_kl, clipped = 0.0, 0.0, 0.0, 0.0
    for i in range(len(rows)):
        row = rows[i]
        log_ratio = log_prob[i] - old_log_probs[row]
        excess = F32(math.expm1(log_ratio))
        kl += excess - log_ratio
        step = log_prob[i] - previous[row]
        pass_kl += F32(math.expm1(step)) - step
        previous[row] = log_prob[i]
        clipped += abs(excess) > clip
        ratio = F32(1) + excess
        if penalized:
            penalty = abs(advantage[i]) / clip
            loss -= ratio * advantage[i] - F32(0.5) * penalty * excess * excess
            log_prob[i] = -ratio * (advantage[i] - penalty * excess) / F32(size)
            continue
        unclipped_objective = ratio * advantage[i]
        clipped_objective = min(max(ratio, F32(1) - clip), F32(1) + clip) * advantage[i]
        loss -= min(unclipped_objective, clipped_objective)
        # (Written so that a NaN takes the branch that keeps it.)
        log_prob[i] = F32(0) if unclipped_objective > clipped_objective else -unclipped_objective / F32(size)
    return loss / size, kl / size, pass_kl / size, clipped / size


@compiled()
def _gaussian_gradient(log_std, log_prob_delta, entropy_coef, mean_delta, log_std_gradient):
    """Turns (action - mean) / std into d loss / d mean and writes d loss / d log_std."""
    count, samples = mean_delta.shape
    for a in range(count):
        inverse_std = F32(math.exp(-log_std[a]))
        total = F32(0)
        for i in range(samples):
            z = mean_delta[a, i]
            mean_delta[a, i] = log_prob_delta[i] * z * inverse_std
            total += log_prob_delta[i] * (z * z - F32(1))
        log_std_gradient[a] = total - entropy_coef


@compiled()
def _categorical_gradient(action, log_probability, choices, log_prob_delta, entropy_coef, probability):
    """Turns probabilities into d loss / d logits, with d entropy / d logit_j = -p_j (log p_j + entropy)."""
    samples = action.shape[1]
    first = 0
    for a in range(len(choices)):
        last = first + choices[a]
        for i in range(samples):
            entropy = F32(0)
            for j in range(first, last):
                entropy -= probability[j, i] * log_probability[j, i]
            for j in range(first, last):
                p = probability[j, i]
                probability[j, i] = entropy_coef * p * (log_probability[j, i] + entropy) - log_prob_delta[i] * p
            probability[first + int(action[a, i]), i] += log_prob_delta[i]
        first = last


@compiled()
def _normalize(block, unit, bias, scale, deviations):
    """Adds the bias, brings every sample to mean 0 and std 1 over the layer (`unit`, 1 / std), and writes it scaled.

    Ba, Kiros, Hinton: "Layer normalization" (2016), https://arxiv.org/abs/1607.06450.
    """
    width, samples = block.shape
    mean = np.zeros(samples, F32)
    for j in range(width):
        for i in range(samples):
            block[j, i] += bias[j]
            mean[i] += block[j, i]
    for i in range(samples):
        mean[i] /= F32(width)
        deviations[i] = F32(0)
    for j in range(width):
        for i in range(samples):
            x = block[j, i] - mean[i]
            unit[j, i] = x
            deviations[i] += x * x
    for i in range(samples):
        deviations[i] = F32(1) / F32(math.sqrt(deviations[i] / F32(width) + LAYER_NORM_EPSILON))
    for j in range(width):
        for i in range(samples):
            unit[j, i] *= deviations[i]
            block[j, i] = unit[j, i] * scale[j]


@compiled()
def _denormalize(delta, unit, scale, deviations, bias_gradient, scale_gradient):
    """Turns d loss / d output of `_normalize` into d loss / d input, and writes the gradients of scale and bias."""
    width, samples = delta.shape
    mean, correlation = np.zeros(samples, F32), np.zeros(samples, F32)
    for j in range(width):
        total = F32(0)
        for i in range(samples):
            total += delta[j, i] * unit[j, i]
            delta[j, i] *= scale[j]
            mean[i] += delta[j, i]
            correlation[i] += delta[j, i] * unit[j, i]
        scale_gradient[j] = total
    for i in range(samples):
        mean[i] /= F32(width)
        correlation[i] /= F32(width)
    for j in range(width):
        total = F32(0)
        for i in range(samples):
            x = (delta[j, i] - mean[i] - unit[j, i] * correlation[i]) * deviations[i]
            delta[j, i] = x
            total += x
        bias_gradient[j] = total


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
def _squared_norm(gradient, pieces):
    total = F32(0)
    for start, stop in pieces:
        # A slice: with an index that might be negative LLVM does not vectorize.
        g = gradient[start:stop]
        for i in range(len(g)):
            total += g[i] * g[i]
    return total


@compiled()
def _adam(parameters, first, second, gradient, pieces, norm, step, floats):
    """Kingma, Ba: "Adam" (2014), with the bias corrections arranged as in torch.optim.Adam."""
    learning_rate, _, _, _, _, _, max_norm, epsilon = floats
    scale = F32(min(1.0, max_norm / (norm + 1e-6)))
    step_size = F32(learning_rate / (1.0 - 0.9**step))
    correction = F32(1.0 / math.sqrt(1.0 - 0.999**step))
    for start, stop in pieces:
        p, m, v, g = parameters[start:stop], first[start:stop], second[start:stop], gradient[start:stop]
        for i in range(len(p)):
            scaled = g[i] * scale
            m[i] = F32(0.9) * m[i] + F32(0.1) * scaled
            v[i] = F32(0.999) * v[i] + F32(0.001) * scaled * scaled
            p[i] -= step_size * m[i] / (F32(math.sqrt(v[i])) * correction + epsilon)
