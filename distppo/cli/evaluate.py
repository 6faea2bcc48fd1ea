"""`evaluate`: plays a trained policy and reports its returns."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distppo.cli.parser import Parser
from distppo.cli.settings import add_trust_flag
from distppo.config.coerce import PlainText, coerce
from distppo.config.fields import FIELDS

if TYPE_CHECKING:
    from distppo.evaluation.evaluate import EvaluationResult

DEFAULT_EPISODES = 10


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument, the checkpoint or the environment is wrong.
    """
    arguments = _parser(program).read(argv)

    from distppo.evaluation.evaluate import evaluate

    # Whatever an environment prints, stdout holds the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        result = evaluate(
            arguments.checkpoint,
            env=arguments.env,
            episodes=arguments.episodes,
            seed=arguments.seed,
            deterministic=arguments.deterministic,
            trust=arguments.trust,
        )
    print(json.dumps(as_json(result)) if arguments.json else as_table(result))
    return 0


def as_json(result: EvaluationResult) -> dict[str, Any]:
    """Returns the result as JSON values; a number that is not finite becomes null, for JSON has none."""
    return {
        "checkpoint": str(result.checkpoint),
        "env": result.env_id,
        "env_steps": result.env_steps,
        "return_mean": _finite(result.return_mean),
        "return_std": _finite(result.return_std),
        "length_mean": _finite(result.length_mean),
        "episodes": result.episodes,
        "seed": result.seed,
        "deterministic": result.deterministic,
        "per_episode": [
            {
                "return": _finite(episode.episode_return),
                "length": episode.length,
                "seed": episode.seed,
                "terminated": episode.terminated,
            }
            for episode in result.results
        ],
    }


def as_table(result: EvaluationResult) -> str:
    """Returns the result as a line an episode, with mean and std below."""
    how = "deterministic" if result.deterministic else "stochastic"
    lines = [
        f"{result.env_id}, {how}, seed {result.seed}",
        f"{result.checkpoint}, trained for {result.env_steps:,} env steps",
        "",
        f"{'episode':>7} {'return':>12} {'length':>8}  ended by",
    ]
    for index, episode in enumerate(result.results):
        ended_by = "termination" if episode.terminated else "truncation"
        lines.append(f"{index:>7} {episode.episode_return:>12,.2f} {episode.length:>8}  {ended_by}")
    lines.append(f"{'mean':>7} {result.return_mean:>12,.2f} {result.length_mean:>8.1f}")
    lines.append(f"{'std':>7} {result.return_std:>12,.2f}")
    return "\n".join(lines)


def _parser(program: str) -> Parser:
    parser = Parser(program, "CHECKPOINT [FLAGS]", "Plays a trained policy with its normalizer frozen and reports its returns.")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run directory (its best, else its last), latest, or an exported file"
    )
    add_trust_flag(parser.add_argument_group("trust", "What --env names is trusted without it."))
    group = parser.add_argument_group("episodes")
    group.add_argument("--env", metavar="ID", help="play in this environment (default: the one it was trained in)")
    group.add_argument(
        "--episodes",
        metavar="N",
        type=_reader("evaluation.episodes"),
        default=DEFAULT_EPISODES,
        help=f"how many (default: {DEFAULT_EPISODES})",
    )
    group.add_argument(
        "--seed", metavar="N", type=_reader("run.seed"), default=0, help="of the starts and of the action noise (default: 0)"
    )
    group = parser.add_argument_group("actions").add_mutually_exclusive_group()
    group.add_argument("--deterministic", action="store_true", default=True, help="the policy's mean (default)")
    group.add_argument("--stochastic", action="store_false", dest="deterministic", help="sampled, as in training")
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser


def _reader(key: str) -> Callable[[str], Any]:
    """Returns a reader for argparse that takes what the setting of this key takes."""

    def read(text: str) -> Any:
        try:
            return coerce(FIELDS[key], PlainText(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
