"""A copy of the workflow in a directory of its own."""

import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import forking
import yaml
from workflow.planning import asked

ROOT = Path(__file__).parents[2]
PARTS = ("Snakefile", "rules", "scripts", "envs", "config", "profiles", "report")

# A name that no shell and no template may read: the whole small run happens in such a place.
HOSTILE_PATH = "a 'b' \"c\" $(touch pwned) `touch pwned`; %s & 中文 -e"
HOSTILE = f"{HOSTILE_PATH} {{d}}"  # in the path of a source, braces are refused
# The whole demo in miniature: all rules, two experiments, a few seconds a job.
SMALL = {
    "sources": {"demo": {"pictures": 60, "text_only": 3}},
    "data": {"held_out_fraction": 0.15},
    "train": {
        "train_iters": 6,
        "save_interval": 2,
        "eval_interval": 3,
        "eval_iters": 1,
        "micro_batch_size": 4,
        "global_batch_size": 8,
    },
    "hf": {"threads": 1},
    "answer": {"max_new_tokens": 8, "batch_size": 8},
    "prompts": {"held_out_questions": 7},
    "experiments": {"baseline": {}, "hot": {"train": {"lr": 5.0e-3}}},
}


def merged(base: Mapping, change: Mapping) -> dict:
    """`base` with the keys of `change`; None removes a key, a mapping goes deeper."""
    result = dict(base)
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


@dataclass
class Checkout:
    """A copy of the workflow that tests may run and change."""

    path: Path

    @classmethod
    def make(cls, path: Path, config: Mapping | None = None) -> "Checkout":
        path.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(
                    ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy2(ROOT / part, path / part)
        checkout = cls(path)
        checkout.configure(config or SMALL)
        return checkout

    def without(self, path: Path, *experiments: str) -> "Checkout":
        """A copy, of what has run too, in which some experiments never were."""
        shutil.copytree(self.path, path, symlinks=True)
        for name in experiments:
            shutil.rmtree(path / "results" / name)
        return Checkout(path)

    def configure(self, change: Mapping) -> None:
        """Write the demo's configuration with some keys changed."""
        demo = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
        text = yaml.safe_dump(merged(demo, change), sort_keys=False, allow_unicode=True)
        (self.path / "config" / "config.yaml").write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]

    def snakemake(self, *arguments: str, fails: bool = False, seconds: int = 600) -> str:
        """Run snakemake here, at most so long; returns all it prints."""
        status, said = forking.snakemake(self.path, ("--cores", "1", *arguments), seconds)
        assert (status != 0) == fails, said
        return said

    def tool(self, name: str, *arguments: str, status: int = 0) -> str:
        """Run a script of the checkout; what it prints, or its sentences where it is to fail."""
        ended, said, errors = forking.script(self.path, f"scripts/{name}.py", arguments)
        assert ended == status, errors
        assert "Traceback" not in errors
        return said if status == 0 else errors

    def asked(self, *arguments: str):
        """What would run, as a `Plan`, and all its causes; see planning.py."""
        return asked(self.path, arguments)

    def planned(self, *arguments: str) -> dict[str, int]:
        """Which rules results/compare.csv would run, and how often."""
        plan, _ = self.asked("results/compare.csv", *arguments)
        return dict(Counter(job.rule for job in plan.needed()))

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()
