"""What the stand-in builds of gloo's collectives, between three processes of our own torch."""

import os
import subprocess
import sys
from pathlib import Path

import framework

MEMBERS = 3


def test_pieces_of_any_size_arrive_where_they_belong(tmp_path):
    script = Path(__file__).with_name("exchange.py")
    environment = {**os.environ, "PYTHONPATH": str(framework.STANDIN), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(MEMBERS), tmp_path / "store"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(MEMBERS)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(text.splitlines()[-1] == "equal" for text in said), said
