"""docs/extending.md is a project that trains through Ray workers, and each mistake it lists gives its message."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import ROOT, wait_until

from distppo.cli import main

DOCUMENT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(yaml|python)\n(.*?)```", DOCUMENT, flags=re.DOTALL)
MESSAGES = re.findall(r"^\| [^|]+ \| `([^`]+)`", DOCUMENT.partition("## What mistakes")[2], flags=re.MULTILINE)
MISTAKES: list[tuple[str, str, str]] = [
    # file, what is there, what it becomes: in the order of the table
    ("tracking.yaml", "id: tracking:Tracking", "id: trakcing:Tracking"),
    ("tracking.yaml", "tracking:ProgressReward", "tracking:ProgresReward"),
    ("tracking.yaml", "{speed: 0.2}", "{sped: 0.2}"),
    ("tracking.yaml", "tracking:ProgressReward", "tracking:BestReturns"),
    ("tracking.py", "def on_evaluation", "def on_evalution"),
    ("tracking.py", "np.concatenate([self._position, self._target()])", "self._position"),
    ("tracking.py", "np.clip(self._position + 0.3 * action, -9, 9)", "np.full(2, 50.0)"),
    ("tracking.py", "-float(np.linalg.norm(self._target() - self._position))", "float('nan')"),
    ("tracking.py", "reward, terminated, truncated, {}", "reward, terminated or truncated, {}"),
    (
        "tracking.py",
        "def reset(self, *, seed=None, options=None):\n        super().reset(seed=seed)",
        "def reset(self):\n        super().reset()",
    ),
]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Writes the project, with one thing replaced."""

    def write(file: str = "", old: str = "", new: str = "") -> Path:
        folder = tmp_path / "my_project"
        folder.mkdir()
        (settings,) = [text for language, text in BLOCKS if language == "yaml"]
        texts = {"tracking.yaml": settings, "tracking.py": "\n\n".join(text for language, text in BLOCKS if language == "python")}
        if file:
            assert texts[file].count(old) >= 1
            texts[file] = texts[file].replace(old, new, 1)
            texts["tracking.yaml"] = re.sub(r"check: true +#", "check: false #", texts["tracking.yaml"])
        for name, text in texts.items():
            (folder / name).write_text(text)
        return folder / "tracking.yaml"

    return write


@pytest.mark.slow
@pytest.mark.ray
def test_the_project_trains_through_ray_workers(project: Callable[..., Path], tmp_path: Path) -> None:
    """From a folder that is neither the project's nor distppo's, with nothing of it installed."""
    config = project()
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "launch.py"), "train", "--config", str(config), "--run-dir", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "on Ray, 2 workers" in done.stdout and "finished: 2,048 env steps" in done.stdout and "  ok       seeding" in done.stdout
    assert (tmp_path / "run" / "best_returns.txt").read_text().split()[0] == "1024"


def test_an_interrupted_project_goes_on_with_the_command_that_is_printed(project: Callable[..., Path], tmp_path: Path) -> None:
    """Its modules lie beside the YAML file, which the command does not name; what distppo ships is not named again either."""
    config = project()
    env = {name: value for name, value in os.environ.items() if name != "DISTPPO_TRUST"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "distppo", "train", "--config", str(config), "--run-dir", "run", "--num-workers", "0"]
    with subprocess.Popen(
        [*command, "--total-timesteps", "100M"], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        wait_until(lambda: process.poll() is not None or (metrics.exists() and metrics.stat().st_size > 0), 60, "an iteration has ended")
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=60)[0]
    (again,) = re.findall(r"continue with: +(.*)", text)
    assert again.startswith('PYTHONPATH=my_project:"$PYTHONPATH" ') and "--trust tracking:Tracking" in again
    assert "StopAtReturn" not in again and "ActionRatePenalty" not in again
    (steps,) = re.findall(r"interrupted: ([\d,]+) env steps", text)
    more = f"{again} --total-timesteps {int(steps.replace(',', '')) + 512}"
    done = subprocess.run(["bash", "-c", more], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "finished: " in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("mistake", "message"), list(zip(MISTAKES, MESSAGES, strict=True)), ids=[message[:60] for message in MESSAGES])
def test_each_mistake_gives_the_message_in_the_document(
    mistake: tuple[str, str, str], message: str, project: Callable[..., Path], tmp_path: Path
) -> None:
    """In a process of its own, as the user's: exit code 2, no traceback of distppo's."""
    config = project(*mistake)
    arguments = ["train", "--config", str(config), "--run-dir", "run", "--num-workers", "0"]
    if "(Tracking)" in message or "'tracking:Tracking' gave" in message:
        arguments += ["--set", "env.wrappers=[]"]  # which would meet it first
    env = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "distppo", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {message}"), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) < 12


@pytest.mark.ray
@pytest.mark.parametrize(
    "mistake",
    [pytest.param(MISTAKES[6], marks=pytest.mark.slow), MISTAKES[7], pytest.param(MISTAKES[9], marks=pytest.mark.slow)],
    ids=["outside", "nan", "signature"],
)
def test_a_mistake_in_a_ray_worker_gives_the_same_message(
    mistake: tuple[str, str, str], project: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], shared_ray: object
) -> None:
    """Whichever worker is first: the environment's number may differ."""
    message = MESSAGES[MISTAKES.index(mistake)]
    with contextlib.chdir(tmp_path):
        module = f"tracking_{MISTAKES.index(mistake)}"
        config = project(*mistake)
        config.with_name("tracking.py").rename(config.with_name(f"{module}.py"))
        config.write_text(config.read_text().replace("tracking:", f"{module}:"))
        assert main(["train", "--config", str(config), "--run-dir", "run", "--no-progress", "--set", "env.wrappers=[]"]) == 2
    error = capsys.readouterr().err
    assert re.sub(r"environment \d", "environment 0", error).startswith("error: " + message.replace("tracking:", f"{module}:"))


def test_the_check_command_reads_the_project_s_settings(project: Callable[..., Path], tmp_path: Path) -> None:
    """As the document shows it."""
    config = project()
    (command,) = re.findall(r"`python launch\.py (env check [^`]+)`", DOCUMENT)
    words = command.replace("my_project/tracking.yaml", str(config)).split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *words], cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.endswith("0 problems\n"), done.stdout + done.stderr


def test_the_api_page_s_examples_run(tmp_path: Path) -> None:
    """docs/api.md from top to bottom, as one program."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    short = program.replace("total_timesteps=16_384, num_workers=2", "total_timesteps=1, num_workers=0, num_steps=1024")
    assert short != program
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    env = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", short], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
