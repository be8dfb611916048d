"""Where the framework keeps its preprocessed data: one directory for each content.

The framework's own cache (that of Hugging Face datasets) is keyed by the data file's path and
time stamp, not by what the pictures hold: pictures replaced under the same names would meet the
token counts of the old ones. Here the place itself is named by all that counts.
"""

import hashlib
import os
import socket
from pathlib import Path

from mindtune.files import sha256_file

# What of a Hugging Face directory decides how conversations become tokens.
PROCESSOR_FILES = (
    "config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.json", "vocab.json", "merges.txt", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip


def cache_directory(
    root: Path,
    *,
    train_data: Path,
    images: Path,
    hf_dir: Path,
    image_resolution: int,
    seq_length: int,
    versions: dict[str, str],
) -> Path:
    """The directory for preprocessed data of this content, on this node.

    Pictures count by name, size and time of change: reading 19 GB to find out that nothing
    changed would take longer than making the cache.
    """
    digest = hashlib.sha256()
    digest.update(f"{sha256_file(train_data)} {image_resolution} {seq_length}\0".encode())
    for name in PROCESSOR_FILES:
        if (hf_dir / name).is_file():
            digest.update(f"{name} {sha256_file(hf_dir / name)}\0".encode())
    for name in sorted(versions):
        digest.update(f"{name} {versions[name]}\0".encode())
    for name, size, changed in sorted(_pictures(images)):
        digest.update(os.fsencode(f"{name} {size} {changed}\0"))
    return root / socket.gethostname().split(".")[0] / digest.hexdigest()[:16]


def _pictures(directory: Path) -> list[tuple[str, int, int]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir():
                below = _pictures(Path(entry.path))
                found += [(f"{entry.name}/{name}", size, changed) for name, size, changed in below]
            else:
                status = entry.stat()
                found.append((entry.name, status.st_size, status.st_mtime_ns))
    return found
