"""provenance.json: what an experiment was made of, by whom, where and how long it took."""

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import ZipFile

from safetensors import safe_open

from mindtune import __version__
from mindtune.checkpoint.content import content_of_checkpoint
from mindtune.comparison.stages import CONTROLS, STAGES
from mindtune.files import read_json_lines, sha256_file
from mindtune.provenance.machine import commit, hardware, packages

FORM = 1
OF_TRAINING = ("train", "parallel")  # sections that say nothing of a model trained elsewhere
NO_COMMIT = {"commit": None, "dirty": None}


def record(
    experiment: str,
    config: Mapping,
    *,
    images: Path,
    instructions: Path,
    base: Path,
    mm: Path | None,
    tuned: Path,
    finetune: Path | None,
    prompts: Path,
    before: Path,
    after: Path,
    benchmarks: Path,
    scopes: Iterable[str],
    adopted: Mapping[str, Mapping[str, str]],
    framework: Path | None = None,
    controls: Mapping[str, Path] | None = None,
) -> dict:
    """All that is to be known of a finished experiment.

    mm, finetune: None for a model that was trained elsewhere. adopted: by output, the code that made
    a result (`made_by`) and the later one that it was taken for (`adopted_as`). framework: what
    `doctor` recorded, None for an engine without a framework of its own. controls: the answers of
    each control's stages, by name (`before_blind`).
    """
    machine = json.loads(framework.read_text(encoding="utf-8")) if framework else None
    if finetune is None:
        config = {key: value for key, value in config.items() if key not in OF_TRAINING}
    return {
        "form": FORM,
        "experiment": experiment,
        "workflow": {"version": __version__, **(commit(Path(__file__).parent) or NO_COMMIT)},
        "adopted": {output: dict(note) for output, note in adopted.items()},
        "config": config,
        "seeds": seeds(config),
        "packages": packages() | framework_packages(machine),
        "frameworks": frameworks(machine),
        "hardware": hardware(),
        "inputs": {
            "instructions": {
                "path": str(instructions),
                "bytes": instructions.stat().st_size,
                "sha256": sha256_file(instructions),
            },
            "images": {"path": str(images), **listing(images)},
        },
        "weights": {
            "base": weights(base),
            "mm_checkpoint": content_of_checkpoint(mm) if mm else None,
            "tuned": weights(tuned),
        },
        "training": json.loads(finetune.read_text(encoding="utf-8")) if finetune else None,
        "results": {
            "prompts": sha256_file(prompts),
            "answers_before": said(before),
            "answers_after": said(after),
            **{f"answers_{name}": said(path) for name, path in (controls or {}).items()},
        },
        "seconds": wall_times(benchmarks, scopes),
    }


def seeds(config: Mapping) -> dict[str, int]:
    """Every seed of a configuration, by its dotted key."""
    found = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": seed for inner, seed in seeds(value).items()}
        elif key.endswith("seed"):
            found[key] = value
    return found


def frameworks(machine: Mapping | None) -> dict[str, dict]:
    """The commit of each repository of the engine's own framework."""
    commits = machine["commits"] if machine else {}
    return {name: {"commit": found, "dirty": None} for name, found in commits.items()}


def framework_packages(machine: Mapping | None) -> dict[str, str]:
    """The versions in the framework's own Python, beside ours."""
    versions = machine["versions"] if machine else {}
    return {f"{name} of the framework": version for name, version in versions.items()}


def listing(pictures: Path) -> dict:
    """Files of a directory or a zip by name and size: reading all of COCO takes many minutes."""
    if pictures.is_file():
        with ZipFile(pictures) as archive:
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    else:
        sizes = {
            path.relative_to(pictures).as_posix(): path.stat().st_size
            for path in pictures.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
    digest = hashlib.sha256()
    for name, size in sorted(sizes.items()):
        digest.update(f"{name} {size}\n".encode())
    return {
        "files": len(sizes),
        "bytes": sum(sizes.values()),
        "sha256_of_names_and_sizes": digest.hexdigest(),
    }


def weights(directory: Path) -> dict:
    """The checksum of each file of weights, one of all of them, and how many numbers they hold."""
    files, parameters, digest = {}, 0, hashlib.sha256()
    for path in sorted(directory.glob("*.safetensors")):
        files[path.name] = sha256_file(path)
        digest.update(f"{path.name} {files[path.name]}\n".encode())
        with safe_open(path, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                size = 1
                for side in tensors.get_slice(name).get_shape():
                    size *= side
                parameters += size
    return {
        "name": directory.name,
        "parameters": parameters,
        "sha256": digest.hexdigest(),
        "files": files,
    }


def said(answers: Path) -> str:
    """A hash of what was answered; how long it took is left out."""
    digest = hashlib.sha256()
    for line in read_json_lines(answers):
        digest.update(json.dumps([line.get("id"), line.get("answer")]).encode())
    return digest.hexdigest()


def wall_times(benchmarks: Path, scopes: Iterable[str]) -> dict[str, float]:
    """Seconds of each rule that an experiment needed, from Snakemake's benchmark files."""
    wanted = {
        f"{scope}{'_' if stage else ''}{stage}": f", {stage}" if stage else ""
        for scope in scopes
        for stage in ("", *STAGES, *(f"{stage}_{one}" for stage in STAGES for one in CONTROLS))
    }
    found = {}
    for path in sorted(benchmarks.glob("*/*.tsv")):
        if path.stem in wanted:
            with open(path, encoding="utf-8", newline="") as handle:
                rows = list(csv.DictReader(handle, delimiter="\t"))
            name = path.parent.name + wanted[path.stem]
            found[name] = round(sum(float(row["s"]) for row in rows), 1)
    return found
