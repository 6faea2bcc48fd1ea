"""What is shipped for clusters: cluster.yaml, docker/, and that all of it names one version of Ray and of Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from distppo.errors import UserError
from distppo.runtime.launcher import read_cluster_file, require_launchable

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "cluster.yaml"
HOSTS, CLOUDS = "hosts of your own", ("AWS", "GCP")
PINNED = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
PYTHON = re.search(r"on Python (3\.\d+)", (ROOT / "constraints.txt").read_text())
DEPLOYED = ("cluster.yaml", "docker/Dockerfile", "docker/compose.yaml", "docker/rayjob.yaml", "docker/README.md", "docs/distributed.md")


def versions_in(text: str) -> list[tuple[str, str]]:
    """Ray and Python of every image that the text names."""
    return [(ray, f"{python[0]}.{python[1:]}") for ray, python in re.findall(r"(?:rayproject/ray|distppo):(\d[\w.]*)-py(\d+)", text)]


def with_block(name: str, text: str) -> str:
    """cluster.yaml as its user makes it for a cloud: one block commented out, another one in."""
    start, end = f"# [{HOSTS}\n", f"# {HOSTS}]\n"
    before, inner, after = text.partition(start)[0], text.partition(start)[2].partition(end)[0], text.partition(end)[2]
    text = before + "".join(f"# {line}\n" for line in inner.splitlines()) + after
    before, inner, after = re.split(rf"^# (?:\[{name}|{name}\])\n", text, flags=re.MULTILINE)
    return before + "".join(line.removeprefix("# ") for line in inner.splitlines(keepends=True)) + after


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Writes a text to a file and reads it as `submit` does."""

    def read(text: str) -> dict[str, Any]:
        (tmp_path / "cluster.yaml").write_text(text)
        return read_cluster_file(tmp_path / "cluster.yaml")

    return read


def test_one_version_of_ray_and_python_everywhere() -> None:
    """Driver, head and workers exchange pickled objects: images, cluster file, RayJob and what `make setup` installs agree."""
    assert PINNED is not None and PYTHON is not None
    expected = (PINNED[1], PYTHON[1])
    found = {name: versions_in((ROOT / name).read_text()) for name in DEPLOYED}
    assert all(found.values()), found
    assert {version for versions in found.values() for version in versions} == {expected}
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", (ROOT / "docker/Dockerfile").read_text(), flags=re.MULTILINE))
    assert (arguments["RAY_VERSION"], arguments["PYTHON"]) == (expected[0], "py" + expected[1].replace(".", ""))
    (job,) = rayjobs()
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == expected[0]


def test_the_cluster_file_is_ray_s_as_it_stands(written: Any) -> None:
    """For hosts of one's own: every one is used, in the pinned image, with shared memory."""
    config = written(FILE.read_text())
    assert config["provider"]["type"] == "local" and config["max_workers"] == len(config["provider"]["worker_ips"])
    assert any(option.startswith("--shm-size=") for option in config["docker"]["run_options"])
    assert all("RAY_AUTH_MODE" in str(config["docker"]["run_options"]) for _ in ("head", "workers"))
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_cloud_s_block_is_whole(cloud: str, written: Any) -> None:
    """Uncommented it is Ray's; the head is on demand, workers are spot instances, and the learner can tell them by a label."""
    config = written(with_block(cloud, FILE.read_text()))
    assert config["provider"]["type"] == cloud.lower()
    head, worker = (config["available_node_types"][name] for name in ("head", "worker"))
    assert "spot" not in str(head["node_config"]).lower() and "spot" in str(worker["node_config"]).lower()
    assert (head["labels"], worker["labels"]) == ({"ray.io/market-type": "on-demand"}, {"ray.io/market-type": "spot"})
    assert config["head_node_type"] == "head" and head["max_workers"] == 0 and 0 < worker["min_workers"] <= worker["max_workers"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("idle_timeout_minutes: 10", "idle_timeout_minute: 10", "'idle_timeout_minute' was unexpected"),
        ("cluster_name: distppo", "cluster_name: 7", "cluster_name: 7 is not of type 'string'"),
        ("  head_ip:", "  head:", "Please supply a `head_ip`"),
        ("type: local", "type: lokal", "lokal"),
        ("  image:", "  imag:", "Must provide a container & image name"),
        ("provider:\n", "prowider:\n", "it has no provider"),
        ("cluster_name: distppo", "cluster_name: [", "expected"),
    ],
)
def test_a_broken_cluster_file_is_refused_in_a_line(old: str, new: str, said: str, written: Any) -> None:
    text = FILE.read_text()
    assert old in text
    with pytest.raises(UserError) as caught:
        written(text.replace(old, new, 1))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_cloud_s_node_type_is_checked_too(written: Any) -> None:
    with pytest.raises(UserError, match="head_node_type"):
        written(with_block("AWS", FILE.read_text()).replace("head_node_type: head", "head_node_type: haed"))


def test_the_example_hosts_are_not_called() -> None:
    with pytest.raises(UserError, match=r"provider: 192\.0\.2\.10, 192\.0\.2\.11, 192\.0\.2\.12 stand for your hosts"):
        require_launchable(FILE, read_cluster_file(FILE))


def rayjobs() -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((ROOT / "docker/rayjob.yaml").read_text()) if document["kind"] == "RayJob"]


SCHEMA = json.loads((ROOT / "tests/data/rayjob_schema.json").read_text())


def test_the_rayjob_has_what_its_definition_requires_and_nothing_it_does_not_know() -> None:
    (job,) = rayjobs()
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(job, SCHEMA)
    spec = job["spec"]
    assert spec["backoffLimit"] > 0 and "--resume latest --or-start" in spec["entrypoint"]
    variables = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    mounts = [mount["mountPath"] for mount in spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
    assert any(variables["DISTPPO_RUNS"].startswith(f"{mount}/") for mount in mounts) and "/dev/shm" in mounts


@pytest.mark.parametrize(
    "path", ["rayClusterSpec.headGroupSpec", "rayClusterSpec.workerGroupSpecs.0.groupName", "rayClusterSpec.headGroupSpec.template"]
)
def test_a_rayjob_without_a_required_field_is_refused(path: str) -> None:
    """The schema of the test can fail."""
    (job,) = rayjobs()
    *parents, last = path.split(".")
    place: Any = job["spec"]
    for name in parents:
        place = place[int(name) if name.isdecimal() else name]
    del place[last]
    with pytest.raises(jsonschema.ValidationError, match=f"'{last}' is a required property"):
        jsonschema.validate(job, SCHEMA)


def linter(name: str) -> str:
    """Its program, from this environment or the path."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; the extra dev has it, as `make setup` installs it")
    return found


@pytest.mark.parametrize(("old", "new", "code"), [("", "", 0), ("FROM rayproject", "FRM rayproject", 1), ("USER 1000", "USER 0", 1)])
def test_the_dockerfile_passes_its_linter(old: str, new: str, code: int, tmp_path: Path) -> None:
    """hadolint: https://github.com/hadolint/hadolint; it does see mistakes and an image that runs as root."""
    (tmp_path / "Dockerfile").write_text((ROOT / "docker/Dockerfile").read_text().replace(old, new))
    done = subprocess.run([linter("hadolint"), "--no-color", str(tmp_path / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert (done.stdout == "") == (code == 0)


@pytest.mark.parametrize(("old", "new", "code"), [("", "", 0), ("shm_size", "shm_siz", 1)])
def test_the_compose_file_is_of_the_compose_specification(old: str, new: str, code: int, tmp_path: Path) -> None:
    """By the schema at https://github.com/compose-spec/compose-spec, which check-jsonschema brings along."""
    (tmp_path / "compose.yaml").write_text((ROOT / "docker/compose.yaml").read_text().replace(old, new))
    words = [linter("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(tmp_path / "compose.yaml")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout


def test_the_compose_file_has_a_head_workers_and_tensorboard_on_one_volume() -> None:
    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert services.keys() == {"head", "worker", "tensorboard"}
    assert all(any(volume.startswith("runs:/runs") for volume in service["volumes"]) for service in services.values())
    assert services["head"]["shm_size"] == services["worker"]["shm_size"] == "8gb"
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)
