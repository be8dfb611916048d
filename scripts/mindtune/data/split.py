"""What is held out: by picture, and never a picture that training sees.

Pictures of one record go together, and so do those that records tie to one another: the
split is by connected component. Where each record has one picture, it is by picture.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence


def is_held_out(image: str, fraction: float, seed: int) -> bool:
    """Whether an image belongs to the held-out part.

    A pure function of name, seed and share: the same on every machine, for every order of
    the records, and an image that is added moves no other.
    """
    digest = hashlib.sha256(f"{seed}/{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def share_of(image: str, seed: int) -> float:
    """The smallest share that does not hold an image out yet; any larger one does."""
    digest = hashlib.sha256(f"{seed}/{image}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def components(groups: Iterable[Sequence[str]]) -> Mapping[str, str]:
    """Image -> the name that stands for all images it is tied to, their smallest.

    Images that are tied to no other are not in the result.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = name = parent.setdefault(above, above)
        return name

    for group in groups:
        for other in group[1:]:
            first, second = sorted((root(group[0]), root(other)))
            parent[second] = first
    return {name: root(name) for name in list(parent)}
