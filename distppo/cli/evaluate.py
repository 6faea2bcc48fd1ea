"""`evaluate`: plays a trained policy, reports its returns, records it and holds its value function against what followed."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distppo.cli.parser import Parser
from distppo.cli.settings import add_trust_flag
from distppo.config.coerce import PlainText, coerce
from distppo.config.fields import FIELDS
from distppo.errors import UserError
from distppo.evaluation.zoo import describe, list_zoo

if TYPE_CHECKING:
    from distppo.evaluation.evaluate import EvaluationResult
    from distppo.evaluation.recording import VideoSettings

DEFAULT_EPISODES = 10
EPISODES_SHOWN = 20
SIZES = {"mp4": (640, 480), "gif": (320, 240)}
SECONDS = {"mp4": 30.0, "gif": 10.0}
LARGEST_SIDE = 4096


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument, the checkpoint or the environment is wrong, or what is asked for cannot be done here.
    """
    arguments = _parser(program).read(argv)
    video = _video_settings(arguments)

    from distppo.evaluation.session import Options, Session

    options = Options(
        checkpoint=arguments.checkpoint,
        env=arguments.env,
        trust=arguments.trust,
        episodes=arguments.episodes,
        seed=arguments.seed,
        deterministic=arguments.deterministic,
        workers=arguments.workers,
        render=arguments.render,
        video=video,
        analyze_value=arguments.analyze_value,
        output=None if arguments.output is None else Path(arguments.output),
    )
    # Whatever an environment prints, stdout holds the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        session = Session(options, _say)
        result = session.play()
    if not arguments.json:
        print(as_table(result), flush=True)
    with contextlib.redirect_stdout(sys.stderr):
        session.analyze()
        session.record()
    folder = None if session.folder is None else str(session.folder)
    if arguments.json:
        print(json.dumps({**session.content, "folder": folder}))
    else:
        print("\n".join([*_value_lines(session.values), *_file_lines(folder, session.content)]))
    return 0


def as_table(result: EvaluationResult) -> str:
    """Returns the result as a line an episode, the first ones where there are many, with the statistics below."""
    how = "deterministic" if result.deterministic else "stochastic"
    lines = [
        f"{result.env_id}, {how}, seed {result.seed}",
        f"{result.checkpoint}, trained for {result.env_steps:,} env steps",
        "",
        f"{'episode':>7} {'return':>12} {'length':>8}  ended by",
    ]
    for episode in result.results[:EPISODES_SHOWN]:
        ended_by = "termination" if episode.terminated else "truncation"
        lines.append(f"{episode.episode:>7} {episode.episode_return:>12,.2f} {episode.length:>8,}  {ended_by}")
    if result.episodes > EPISODES_SHOWN:
        lines.append(f"    ... {result.episodes - EPISODES_SHOWN:,} more")
    lines += ["", f"{'mean':>7} {result.return_mean:>12,.2f} {result.length_mean:>8,.1f}", f"{'std':>7} {result.return_std:>12,.2f}"]
    lines.append(f"{'median':>7} {result.return_median:>12,.2f}")
    interval = result.return_iqm_interval
    within = "" if interval is None else f"  95% interval {interval[0]:,.2f} to {interval[1]:,.2f}"
    lines.append(f"{'IQM':>7} {result.return_iqm:>12,.2f}{within}")
    return "\n".join(lines)


def _value_lines(values: Mapping[str, Any] | None) -> list[str]:
    """Returns what the value analysis comes to."""
    if values is None:
        return []
    number = {name: "undefined" if values[name] is None else f"{values[name]:,.3g}" for name in ("r2", "explained_variance")}
    scaled = f"; training divided rewards by {values['reward_scale']:,.3g}" if values["reward_scale"] != 1 else ""
    return [
        "",
        f"value function over {values['episodes']} episodes of sampled actions, which are what it predicts{scaled}",
        f"  predicted {values['predicted_mean']:,.2f} on average, realised {values['realised_mean']:,.2f}: bias {values['bias']:+,.2f}",
        f"  R2 {number['r2']}, explained variance {number['explained_variance']}, rmse {values['rmse']:,.2f}, "
        f"TD error {values['td_error']['mean']:+,.3g} +- {values['td_error']['std']:,.3g}",
        f"  most overestimated: {_listed(values['most_overestimated'])}; most underestimated: {_listed(values['most_underestimated'])}",
    ]


def _listed(episodes: Sequence[int]) -> str:
    return ("episode " if len(episodes) == 1 else "episodes ") + ", ".join(map(str, episodes)) if episodes else "none"


def _file_lines(folder: str | None, content: Mapping[str, Any]) -> list[str]:
    """Returns where everything is."""
    if folder is None:
        return []
    names = ["evaluation.json", *([content["values"]] if "values" in content else []), *content.get("figures", [])]
    return ["", f"written to {folder}", "  " + "  ".join([*names, *(video["file"] for video in content.get("videos", []))])]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser(program: str) -> Parser:
    parser = Parser(program, "CHECKPOINT [FLAGS]", "Plays a trained policy with its normalizer frozen and reports its returns.")
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="latest, a run directory (its best, else its last), RUN@best, RUN@last, RUN@<env steps>, a checkpoint, an exported file, "
        "or zoo:NAME, a policy that is shipped (listed below)",
    )
    _add_episode_flags(parser)
    _add_video_flags(parser)
    group = parser.add_argument_group("value function")
    group.add_argument(
        "--analyze-value",
        action="store_true",
        help="hold what the critic predicts against what followed: values.json and figures, and with --record its curve in the videos",
    )
    group = parser.add_argument_group("output")
    group.add_argument("--output", metavar="DIR", help="make the evaluation's folder in DIR (default: evaluations/ in the run directory)")
    group.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    add_trust_flag(parser.add_argument_group("trust", "What --env names is trusted without it."))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["policies that are shipped:", *_shipped()])
    return parser


def _shipped() -> list[str]:
    """Returns the lines of the zoo; a damaged list of it is no reason not to evaluate something else."""
    try:
        return describe(list_zoo()) or ["  none in this version"]
    except UserError as error:
        return [f"  {error}"]


def _add_episode_flags(parser: Parser) -> None:
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
    group.add_argument(
        "--workers",
        metavar="N",
        type=_reader("rollout.num_envs"),
        help="processes that play side by side; changes no return (default: one for every 20,000 env steps, at most one a core)",
    )
    group = parser.add_argument_group("actions").add_mutually_exclusive_group()
    group.add_argument("--deterministic", action="store_true", default=True, help="the most likely one, a Gaussian's mean (default)")
    group.add_argument("--stochastic", action="store_false", dest="deterministic", help="sampled, as in training")


def _add_video_flags(parser: Parser) -> None:
    group = parser.add_argument_group("pictures")
    group.add_argument("--render", action="store_true", help="show the episodes in a window as they are played; needs a display")
    group.add_argument("--record", action="store_true", help="write videos of the best, the median and the worst episode; needs no display")
    group.add_argument("--record-episodes", metavar="N", type=_reader("evaluation.episodes"), help="record the first N episodes instead")
    group.add_argument("--format", choices=tuple(SIZES), help="of the videos (default: mp4 if the extra video is installed, else gif)")
    group.add_argument("--size", metavar="WxH", type=_size, help="of the picture in pixels (default: 640x480, gif 320x240)")
    group.add_argument(
        "--seconds", metavar="S", type=_seconds, help="length of a video at most (default: {mp4:g}, gif {gif:g})".format(**SECONDS)
    )


def _video_settings(arguments: argparse.Namespace) -> VideoSettings | None:
    """Returns how to record, or None.

    Raises:
        UserError: mp4 is asked for and cannot be written, or a flag says how to record and none to do it.
    """
    if not arguments.record and arguments.record_episodes is None:
        idle = [flag for flag in ("format", "size", "seconds") if getattr(arguments, flag) is not None]
        if idle:
            raise UserError(f"--{idle[0]} says how to record, and nothing is recorded; add --record")
        return None
    from distppo.evaluation.recording import VideoSettings
    from distppo.evaluation.video import has_mp4

    if arguments.format == "mp4" and not has_mp4():
        raise UserError("--format mp4 needs imageio-ffmpeg: pip install 'distppo[video]', or use --format gif, which needs nothing")
    form = arguments.format or ("mp4" if has_mp4() else "gif")
    if arguments.format is None and form == "gif":
        _say("writing GIFs, which show the first seconds in few colours; for mp4: pip install 'distppo[video]'")
    width, height = arguments.size or SIZES[form]
    return VideoSettings(f".{form}", width, height, arguments.seconds or SECONDS[form], arguments.record_episodes)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(16 <= side <= LARGEST_SIDE for side in sides):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT in pixels, each 16 to {LARGEST_SIDE}, as in 640x480, got {text[:40]!r}")
    return sides


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text[:40]!r}")
    return seconds


def _reader(key: str) -> Callable[[str], Any]:
    """Returns a reader for argparse that takes what the setting of this key takes."""

    def read(text: str) -> Any:
        try:
            return coerce(FIELDS[key], PlainText(text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read
