"""`env check`: examines an environment as training would make it."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.parser import Parser
from distppo.cli.settings import add_file_flags, extend_path_to_files
from distppo.config.coerce import PlainText
from distppo.config.load import load_layers
from distppo.config.overrides import Assignment
from distppo.config.sources import from_texts

PROBLEMS = 2


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command; returns 2 if there are problems.

    Raises:
        UserError: an argument or a setting is wrong, or the environment cannot be made.
    """
    parser = Parser(program, "[ID] [FLAGS]", "Plays a few episodes with random actions and reports what is wrong with an environment.")
    parser.add_argument("id", nargs="?", metavar="ID", help="Gymnasium id, module:Env-v0, or module:Name of a class or function")
    add_file_flags(parser)
    arguments = parser.read(argv)
    extend_path_to_files(arguments.config)
    named = [Assignment("env.id", PlainText(arguments.id), arguments.id)] if arguments.id else []
    assignments, problems = from_texts(arguments.set, prefix="--set ")
    config, _ = load_layers(arguments.config, [*named, *assignments], problems=problems, check=False)

    from distppo.envs.check import examine_env

    report = examine_env(config.env)
    spec = report.spec
    limit = f"{spec.max_episode_steps} steps" if spec.max_episode_steps else "no time limit"
    print(f"{spec.id}: observations {list(spec.observation_shape)}, actions {list(spec.action_shape)}, {limit}")
    print("\n".join(report.lines()))
    print(f"{report.problems} problem{'' if report.problems == 1 else 's'}")
    return PROBLEMS if report.problems else 0
