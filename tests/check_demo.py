"""Check what a full run of the demo left: the figures that the README promises.

python tests/check_demo.py results
"""

import re
import sys
from pathlib import Path

import pandas as pd

BOX = re.compile(r"\(\d+,\d+\),\(\d+,\d+\)")


def main(results: Path) -> None:
    compared = pd.read_csv(results / "compare.csv")
    bus = compared.iloc[0]
    assert bus["prompt"] == "What feature can be seen on the back of the bus?"
    assert BOX.search(bus["before"]), bus["before"]
    assert bus["after"] == "On the back of the bus, there is a large advertisement for a drink."
    held_out = compared[compared["split"] == "held_out"]
    assert len(held_out) >= 300 and not held_out["image_in_training"].any()
    before, after = held_out["exact_before"].mean(), held_out["exact_after"].mean()
    print(f"held-out exact match {before:.1%} before, {after:.1%} after (n = {len(held_out)})")
    assert before <= 0.05 and after >= 0.90
    loss = pd.read_csv(results / "baseline" / "loss.csv")
    assert loss["held_out_loss"].dropna().iloc[-1] < 0.1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
