"""The workflow files, as far as they can be held without the service that runs them."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from bench.gate import command
from bench.gate.command import parsed

ROOT = Path(__file__).resolve().parents[3]
FILES = [ROOT / ".github" / "workflows" / "ci.yml", ROOT / "bench" / "gate" / "workflows" / "speed-gate.yml"]
FILL = {"BASE": "main", "MODEL": "my_package.models:make_model", "SHAPE": "3,32,32", "HARNESS": "harness"}


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["jobs"]


def runs(path: Path) -> list[tuple[str, dict, str]]:
    """(job, step, what the step runs) of every step that runs something."""
    return [(name, step, step["run"]) for name, job in jobs(path).items() for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_workflow_is_whole_and_may_only_read(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]  # 'on', which YAML takes for a truth value
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_line_is_shell_and_takes_what_others_may_write_only_from_its_environment(path: Path) -> None:
    for _, step, text in runs(path):
        subprocess.run(["bash", "-n", "-c", text], check=True)
        assert "${{" not in text  # a branch's name would become part of the command
        known = {*FILL, *step.get("env", {})}
        assert set(re.findall(r"\$(\w+)", text)) <= known


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_gate_is_asked_for_in_words_that_it_knows_after_a_checkout_that_has_the_base(path: Path) -> None:
    found = 0
    for name, _, text in runs(path):
        if "bench gate" not in text:
            continue
        words = shlex.split(re.sub(r"\$(\w+)", lambda m: FILL[m.group(1)], text))
        assert words[:4] == ["python", "-m", "bench", "gate"]
        asked = parsed(words[4:])
        assert asked.against == "origin/main"
        assert {asked.markdown, asked.json, asked.junit} == {Path("gate.md"), Path("gate.json"), Path("gate.xml")}
        checkout = jobs(path)[name]["steps"][0]
        assert checkout["with"]["fetch-depth"] == 0
        if not asked.model:
            from bench.contenders import CONTENDERS

            assert set(command.names_in(asked.rows)) <= set(CONTENDERS)
        found += 1
    assert found >= 1


def test_what_continuous_integration_runs_can_be_run() -> None:
    (text,) = [text for name, _, text in runs(FILES[0]) if name == "test"]
    script = ROOT / text
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
