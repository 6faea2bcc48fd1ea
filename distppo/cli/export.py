"""`export`: writes a trained policy as one file to deploy."""

from __future__ import annotations

from collections.abc import Sequence

from distppo.cli.parser import Parser

FORMATS = ("onnx", "numpy", "torch")


def main(argv: Sequence[str], program: str) -> int:
    """Runs the command.

    Raises:
        UserError: an argument or the checkpoint is wrong, a package is missing, or the file would not act as the policy does.
    """
    description = "Writes the deterministic policy, with its normalizer and action scaling inside, and compares it with the checkpoint's."
    parser = Parser(program, "CHECKPOINT --format FORMAT [--output FILE]", description)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run directory (its best, else its last) or latest, the newest run"
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        help="onnx (needs the extra export), numpy (one .npz for a loader that needs numpy alone), torch (for torch.export.load)",
    )
    parser.add_argument("--output", metavar="FILE", help="file to write (default: policy-<env steps> in the run directory)")
    arguments = parser.read(argv)

    from distppo.evaluation.export import export_policy

    result = export_policy(arguments.checkpoint, format=arguments.format, output=arguments.output)
    print(f"{result.checkpoint} -> {result.path}, {result.path.stat().st_size:,} bytes")
    print(f"largest difference from the checkpoint's actions over {result.observations:,} observations: {result.largest_difference:.1e}")
    return 0
