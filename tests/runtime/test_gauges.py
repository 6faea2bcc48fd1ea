"""What a Prometheus would read of a run, and what the dashboard asks for."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from runtime.running import ROOT, Run, wait_until

DASHBOARD = ROOT / "docs" / "grafana" / "distppo.json"
NAME = re.compile(r"\bray_\w+")


def queries(node: Any) -> Iterator[str]:
    """Every query in the dashboard: of panels and of variables."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("expr", "query", "definition") if isinstance(node.get(key), str))
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from queries(each)


def scraped(ray: Any) -> set[str]:
    """The names of all metrics that the node of this machine exports."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
        return set(re.findall(r"^(ray_\w+)[{ ]", answer.read().decode(), re.MULTILINE))


@pytest.mark.ray
def test_the_dashboard_asks_only_for_what_a_run_exports(small: Callable[..., Run], shared_ray: Any) -> None:
    """Every metric that a query names is in the scrape of a real run, evaluated once."""
    asked = {name for query in queries(json.loads(DASHBOARD.read_text())) for name in NAME.findall(query)}
    assert len(asked) > 15
    run = small({"rollout.num_workers": 1, "evaluation.every": 128, "evaluation.episodes": 1})
    assert run.rows[-1]["dist/workers"] == 1
    wait_until(lambda: asked <= scraped(shared_ray), 60, f"exported: {sorted(asked)}")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Panels with ids of their own that do not overlap, each with queries of the chosen data source and runs."""
    board = json.loads(DASHBOARD.read_text())
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(places) == len(board["panels"])
    for panel in board["panels"]:
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert all('run=~"$run"' in target["expr"] for target in panel["targets"] if "ray_distppo" in target["expr"])
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "run"]
