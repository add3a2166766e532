"""The agent's own tests, built by Nix and run as root: they see that rights are really given up."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("features", ["testing", "testing,exec"])
def test_the_agents_own_tests_pass(build, features):
    programs = sorted((build("agent-tests") / features / "debug/deps").iterdir())
    names = {program.name.rpartition("-")[0] for program in programs}
    assert {"mvm_guest_agent", "agent", "confine"} <= names
    for program in programs:
        done = subprocess.run(
            [program],
            env={**os.environ, "MVM_REPOSITORY": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        assert "SKIPPED" not in done.stdout + done.stderr
