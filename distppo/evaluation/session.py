"""One evaluation from the first check to the last file: the code behind `launch.py evaluate`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym

from distppo.checkpoint import Checkpoint
from distppo.envs import make_env
from distppo.envs.renderer import choose_renderer, has_display, require_renderer
from distppo.errors import UserError
from distppo.evaluation.episodes import EpisodeResult
from distppo.evaluation.evaluate import EvaluationResult, result_of
from distppo.evaluation.frames import Curves
from distppo.evaluation.parallel import Job, play, worthwhile_workers
from distppo.evaluation.recording import VideoSettings, choose, drawn, record
from distppo.evaluation.results import EVALUATION_FILE, VALUES_FILE, content_of, default_root, finite, make_folder, write_json
from distppo.evaluation.scene import require_render_mode
from distppo.evaluation.subject import load_subject, require_sampling
from distppo.evaluation.value_analysis import Comparison, analyze, compare
from distppo.evaluation.values import Trace, ValueUnits, value_units


class Options(NamedTuple):
    """What an evaluation is asked for.

    Attributes:
        checkpoint: a reference to a checkpoint, or an exported file.
        env: Gymnasium id to play instead of the one trained in, or None.
        trust: code that may be loaded although the checkpoint names it.
        episodes: how many.
        seed: of the starts and the noise.
        deterministic: take the most likely action.
        workers: processes; None: as many as pay.
        render: show the episodes in a window as they are played.
        video: record some of them, or None.
        analyze_value: hold the critic against what followed.
        output: where the evaluation's folder is made; None: in the run.
    """

    checkpoint: str
    env: str | None = None
    trust: Sequence[str] = ()
    episodes: int = 10
    seed: int = 0
    deterministic: bool = True
    workers: int | None = None
    render: bool = False
    video: VideoSettings | None = None
    analyze_value: bool = False
    output: Path | None = None


class Session:
    """Everything that can be refused is refused by the constructor, before an episode is played.

    Args:
        options: what is asked for.
        say: takes a line for the user, about what is being done.

    Attributes:
        folder: of the evaluation; None where none can be made and nothing but scores was asked for.
        content: of evaluation.json so far.
        values: of values.json, or None.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
        UserError: there is no display to render to, nothing that draws, no value function, or no folder for what is asked for.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        if options.render and not has_display():
            raise UserError(
                "--render opens a window, and there is no display here (DISPLAY is not set); --record writes videos without one"
            )
        self._subject, checkpoint = load_subject(options.checkpoint, env=options.env, trust=options.trust)
        if not options.deterministic:
            require_sampling(self._subject)
        self._units = self._value_units(checkpoint) if options.analyze_value else None
        if options.render or options.video is not None:
            self._require_drawing()
        self.folder = self._make_folder()
        self.content: dict[str, Any] = {}
        self.values: dict[str, Any] | None = None
        self._results: list[EpisodeResult] = []
        self._traces: list[Trace] = []

    def play(self) -> EvaluationResult:
        """Plays the episodes and writes their scores; where the disk refuses those, a line says so and nothing is lost.

        Raises:
            UserError: the environment breaks, or does not fit. Then no folder is left.
        """
        options, subject = self._options, self._subject
        workers = 1 if options.render else options.workers or worthwhile_workers(subject, options.episodes)
        job = Job(
            drawn(subject, "human") if options.render else subject,
            range(options.episodes),
            options.seed,
            options.deterministic,
            self._units,
        )
        try:
            self._results, self._traces = play(job, workers)
        except BaseException:
            if self.folder is not None:
                self.folder.rmdir()
            raise
        result = result_of(self._subject, options.seed, options.deterministic, self._results)
        self.content = content_of(self._subject, result, workers=workers)
        try:
            self._save()
        except UserError as error:
            self._say(f"warning: {error}")
        return result

    def analyze(self) -> None:
        """Holds the critic against what followed, where that was asked for: values.json and figures.

        A critic predicts what sampled actions lead to, so episodes of such are played for it if the scores are of the most likely ones.

        Raises:
            UserError: the files cannot be written.
        """
        if self._units is None:
            return
        options, traces = self._options, self._traces
        if options.deterministic:
            job = Job(self._subject, range(options.episodes), options.seed, False, self._units)
            _, traces = play(job, options.workers or worthwhile_workers(self._subject, options.episodes))
        gamma = self._subject.config.ppo.gamma
        analysis, compared = analyze(traces, gamma=gamma)
        head = {
            "format": self.content["format"],
            "checkpoint": self.content["checkpoint"],
            "env_steps": self.content["env_steps"],
            "episodes": len(traces),
            "seed": options.seed,
            "deterministic": False,
            "gamma": gamma,
            "reward_scale": self._units.reward_scale,
        }
        self.values = finite(head | analysis)
        assert self.folder is not None
        with _told(self.folder):
            write_json(self.folder / VALUES_FILE, self.values or {})
            self.content["values"], self.content["figures"] = VALUES_FILE, self._draw_figures(self.folder, analysis, compared)
        self._save()

    def record(self) -> None:
        """Records the videos that were asked for; with the value analysis the critic's curve stands under them.

        Raises:
            UserError: the environment cannot be drawn, or a file not written.
        """
        options = self._options
        if options.video is None:
            return
        assert self.folder is not None
        self.content["videos"] = record(
            self._subject,
            choose(self._results, options.video.first),
            self.folder,
            options.video,
            seed=options.seed,
            deterministic=options.deterministic,
            curves={trace.result.episode: self._curves(trace) for trace in self._traces},
            say=self._say,
        )
        self._save()

    def _value_units(self, checkpoint: Checkpoint | None) -> ValueUnits:
        if checkpoint is None:
            path = self._subject.path
            raise UserError(f"{path} is an exported policy, which has no value function; analyze the checkpoint it was exported from")
        return value_units(checkpoint)

    def _require_drawing(self) -> None:
        """Raises UserError unless the environment can be drawn as asked, and MuJoCo's here."""
        config = self._subject.config.env
        choose_renderer()  # before anything imports mujoco
        env, _ = make_env(config)
        with contextlib.closing(env):
            for asked, mode in ((self._options.render, "human"), (self._options.video is not None, "rgb_array")):
                if asked:
                    require_render_mode(env, config.id, mode)
            if hasattr(env.unwrapped, "mujoco_renderer"):
                require_renderer()
                return
        self._require_package()

    def _require_package(self) -> None:
        """Draws a frame of an environment that is not MuJoCo's, before any episode is played; Gymnasium's own need pygame."""
        config = drawn(self._subject, "rgb_array").config.env
        env, _ = make_env(config)
        with contextlib.closing(env):
            if "rgb_array" not in (env.metadata.get("render_modes") or []):
                return
            try:
                env.reset(seed=0)
                env.render()
            except gym.error.DependencyNotInstalled as error:
                raise UserError(f"{config.id} cannot be drawn: {error}") from error
            except Exception:
                return  # of the environment's own: told with its traceback where an episode meets it

    def _make_folder(self) -> Path | None:
        root = self._options.output or default_root(self._subject)
        if root.is_symlink() and self._options.output is None:
            raise UserError(f"{root} is a link; what belongs to a run is written in its own folder alone. --output chooses another place")
        try:
            return make_folder(root, self._subject)
        except OSError as error:
            message = f"{root}: {error.strerror}, so nothing can be written there; --output chooses another place"
            if self._options.video is not None or self._units is not None or self._options.output is not None:
                raise UserError(message) from error
            self._say(f"warning: {message}")
            return None

    def _draw_figures(self, folder: Path, analysis: dict[str, Any], compared: Sequence[Comparison]) -> list[str]:
        try:
            from distppo.evaluation.figures import draw_figures

            return draw_figures(folder, analysis, compared)
        except ImportError:
            self._say("no figures were drawn: they need matplotlib, pip install 'distppo[plot]'; the numbers are in values.json")
            return []

    def _curves(self, trace: Trace) -> Curves:
        one = compare(trace, gamma=self._subject.config.ppo.gamma)
        return Curves(trace.values, one.realised)

    def _save(self) -> None:
        if self.folder is not None:
            with _told(self.folder):
                write_json(self.folder / EVALUATION_FILE, self.content)


@contextlib.contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turns what the disk refuses into a message.

    Raises:
        UserError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}; --output chooses another place") from error
