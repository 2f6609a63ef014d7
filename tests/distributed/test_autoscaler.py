"""A rebuild under Ray's real autoscaler: nodes come, judge in proportion, and go."""

import re
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
NODES, WINDOWS, SECONDS = "2", "1920", "1"


@pytest.mark.timeout(400)
def test_nodes_join_for_a_rebuild_judge_in_proportion_and_leave():
    command = [sys.executable, "-m", "benchmarks.autoscale", NODES, WINDOWS, SECONDS]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    one, two = (line for line in lines if "actors" in line)
    assert re.search("1,920 windows", one)
    assert re.search("3,840 windows", two)
    assert float(re.search(r"([\d.]+) of 2 times one", two)[1]) >= 0.85
    nodes, seconds = re.search(r"(\d+) node (\d+) s after the end \(idle timeout 30 s\)", lines[-1]).groups()
    assert nodes == "1"
    assert int(seconds) < 90
