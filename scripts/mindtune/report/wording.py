"""The words and numbers of the page."""

from collections.abc import Iterator, Mapping

import pandas as pd

from mindtune.comparison.metrics import BY_NAME, SHARE
from mindtune.comparison.tables import ALL


def percent(share: float) -> str:
    """A share in per cent; one decimal, and none where it says nothing.

    Nearly all is not written as all, nor nearly none as none.
    """
    value = 100 * share
    if 0 < value < 0.05:
        return "< 0.1\u202f%"
    if 99.95 <= value < 100:
        return "> 99.9\u202f%"
    whole = abs(value - round(value)) < 0.05
    return f"{value:.{0 if whole else 1}f}\u202f%"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """A difference, with its sign, a real minus, and no sign where it rounds to nothing."""
    text = f"{value:+,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def headline(
    metrics: pd.DataFrame, compared: pd.DataFrame, experiment: str, confidence: float
) -> dict:
    """What to know first: a sentence, and the numbers it rests on.

    It is about the exact match of held-out prompts, or about their chrF where no answer is
    ever exact; about the named prompts when there are no held-out ones.
    """
    mine = metrics[(metrics["experiment"] == experiment) & (metrics["family"] == ALL)]
    split = "held_out" if (mine["split"] == "held_out").any() else "named"
    rows = mine[mine["split"] == split].set_index("metric")
    asked = compared[(compared["experiment"] == experiment) & (compared["split"] == split)]
    changed = float(asked["changed"].mean())
    place = "held-out" if split == "held_out" else "named"
    if "exact" not in rows.index:
        return {
            "says": "unknown",
            "title": f"Fine-tuning changed {percent(changed)} of the answers",
            "text": f"No {place} prompt has a reference, so nobody can say whether for the better.",
        }
    exact = rows.loc["exact"]
    name = "exact" if exact["before"] or exact["after"] else "chrf"
    row = rows.loc[name]
    shown = percent if BY_NAME[name].kind == SHARE else number
    before, after = shown(row["before"]), shown(row["after"])
    what = "answered exactly right" if name == "exact" else "in chrF"
    titles = {
        "better": f"Fine-tuning took {place} questions from {before} to {after} {what}",
        "worse": f"Fine-tuning made {place} answers worse: from {before} to {after} {what}",
        "no difference": f"No difference can be told: {before} before, {after} after, {what}",
    }
    if not changed:
        titles["no difference"] = "No difference: not one answer changed"
    scale, unit = (100, " points") if name == "exact" else (1, "")
    difference, low, high = (signed(scale * row[key]) for key in ("difference", "low", "high"))
    return {
        "says": row["says"],
        "title": titles[row["says"]],
        "text": (
            f"{place.capitalize()} {'exact match' if name == 'exact' else 'chrF'} {before} → "
            f"{after} (n = {int(row['n'])} questions about {int(row['pictures'])} pictures; "
            f"difference {difference}{unit}, {percent(confidence)} CI {low} to {high}, "
            f"p {'' if row['p'] < 0.001 else '= '}{p_value(row['p'])}). {percent(changed)} of the answers changed."
        ),
    }


def facts(provenance: Mapping, conversion: Mapping) -> list[tuple[str, str]]:
    """Model, data, settings, engine and machine, a line each."""
    config, machine = provenance["config"], provenance["hardware"]
    train, base = config["train"], provenance["weights"]["base"]
    engine = config["engine"]
    own = config.get(engine, {})
    frozen = [name for name in ("vision_encoder", "vision_projector") if train[f"freeze_{name}"]]
    images = conversion["images"]
    return [
        ("Model", f"{base['name']}, {base['parameters'] / 1e6:,.1f} million parameters"),
        (
            "Data",
            f"{conversion['kept']['train']:,} conversations about {images['train']:,} pictures; "
            f"{images['held_out']:,} pictures held out",
        ),
        (
            "Settings",
            f"{train['train_iters']} iterations of {train['global_batch_size']}, learning rate "
            f"{train['lr']:g} ({train['lr_decay_style']}), "
            + (f"frozen: {' and '.join(frozen).replace('_', ' ')}" if frozen else "nothing frozen"),
        ),
        (
            "Engine",
            f"{engine} on {own.get('device', 'its device')}, {own.get('precision', '')}; "
            f"torch {provenance['packages'].get('torch', '?')}, "
            f"transformers {provenance['packages'].get('transformers', '?')}",
        ),
        (
            "Machine",
            ", ".join(machine["accelerators"])
            or f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
        ),
    ]


def flat(config: Mapping, prefix: str = "") -> dict[str, str]:
    """A configuration as dotted keys and values in YAML's words."""
    return dict(_flat(config, prefix))


def _flat(config: Mapping, prefix: str) -> Iterator[tuple[str, str]]:
    words = {None: "null", True: "true", False: "false"}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            plain = value is None or isinstance(value, bool)
            yield f"{prefix}{key}", words[value] if plain else str(value)


def differing_settings(provenance: Mapping[str, Mapping]) -> dict[str, dict[str, str]]:
    """For each experiment, the settings in which it isn't like all others."""
    flats = {name: flat(found["config"]) for name, found in provenance.items()}
    keys = sorted({key for one in flats.values() for key in one} if len(flats) > 1 else ())
    varied = [key for key in keys if len({one.get(key) for one in flats.values()}) > 1]
    return {name: {key: one.get(key, "–") for key in varied} for name, one in flats.items()}
