"""`autotune` tries layouts of one and the same batch, stays within its time, and proposes another only if it is really faster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from runtime.running import SECONDS, processes_of, wait_until

from distppo.config import load_config
from distppo.runtime.autotune import Layout, Measurement, configured, proposed, search, shortened, with_layout

CONFIG = load_config(num_workers=2)


def speeds(of: Callable[[Layout], float]) -> Callable[[Layout], Measurement]:
    return lambda layout: Measurement(layout, of(layout), "fused")


def tried(of: Callable[[Layout], float], cores: int = 2) -> list[Layout]:
    return [layout for layout, _ in search(CONFIG, speeds(of), cores=cores)]


def test_the_configured_layout_comes_first_and_none_comes_twice() -> None:
    layouts = tried(lambda _: 1.0)
    assert layouts[0] == configured(CONFIG) == Layout(2, 8, "sync", None)
    assert len(layouts) == len(set(layouts)) >= 8
    assert {layout.mode for layout in layouts} == {"sync", "overlap"}
    assert {layout.num_workers for layout in layouts} == {0, 1, 2}


def test_what_is_fastest_so_far_is_varied_further() -> None:
    layouts = tried(lambda layout: layout.num_envs + (layout.mode == "overlap") + (layout.num_workers == 1))
    assert Layout(1, 16, "overlap", None) in layouts and Layout(1, 16, "overlap", 1) in layouts
    assert Layout(2, 16, "sync", None) not in layouts


@pytest.mark.parametrize("cores", [1, 2, 3, 8, 64])
def test_every_layout_has_the_batch_that_is_configured_and_is_a_right_configuration(cores: int) -> None:
    for layout in tried(lambda layout: layout.num_envs, cores):
        config = with_layout(CONFIG, layout)
        assert config.batch_size == CONFIG.batch_size and layout.num_workers <= layout.num_envs
        short = shortened(config)
        assert short.batch_size % short.ppo.mini_batch_size == 0 and short.rollout.num_envs == layout.num_envs
        assert short.batch_size <= 4096 or short.batch_size <= config.batch_size == short.rollout.num_envs


def test_what_cannot_be_measured_is_passed_over() -> None:
    found = dict(search(CONFIG, lambda layout: None if layout.num_workers else Measurement(layout, 5.0, "fused"), cores=2))
    assert [layout.num_workers for layout, measured in found.items() if measured] == [0] * len([m for m in found.values() if m])


def test_what_is_hardly_faster_is_not_proposed() -> None:
    first, other = Measurement(Layout(2, 8, "sync", None), 100.0, "fused"), Measurement(Layout(1, 8, "overlap", None), 102.0, "fused")
    assert proposed([first, other]) is first
    assert proposed([first, other._replace(fps=110.0)]).fps == 110.0


@pytest.mark.slow
@pytest.mark.ray
def test_this_machine_is_measured_and_left_as_it_was(
    started: Callable[..., subprocess.Popen[bytes]], small_file: str, tmp_path: Path
) -> None:
    process = started("autotune", "--config", small_file, "--num-workers", "0", "--seconds", "12")
    assert process.wait(SECONDS) == 0
    lines = (tmp_path / "stdout").read_text().splitlines()
    assert lines[0].startswith("probe_envs:Point-v0, 128 env steps a batch, on ")
    assert lines[2].split()[:5] == ["0", "4", "x", "32", "sync"] and float(lines[2].split()[-1].replace(",", "")) > 0
    assert any(line.startswith(("proposed: ", "the configured layout is as fast as any")) for line in lines)
    assert (tmp_path / "stderr").read_text() == ""
    wait_until(lambda: not processes_of(process.pid), 10, "no process is left")
