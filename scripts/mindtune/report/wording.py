"""The words and numbers of the page."""

from collections.abc import Iterator, Mapping

import pandas as pd

from mindtune.comparison.content import form, forms_differ
from mindtune.comparison.metrics import BY_NAME, Metric
from mindtune.comparison.tables import ALL
from mindtune.comparison.verdicts import AS_GOOD, BETTER, OPEN, WORSE, Rule

MOST = 0.5  # share of answers in another form from which on the form is what changed first


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
    if pd.isna(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def scored(value: float | None, metric: Metric) -> str:
    """A score as its metric is shown: in per cent, in seconds with three decimals, or plain."""
    if value is None or pd.isna(value):
        return "–"
    if metric.in_percent:
        return percent(value)
    return number(value, 3 if metric.name == "seconds" else 1)


def span(row: Mapping, metric: Metric) -> str:
    """A difference with its interval, in points where the metric is in per cent."""
    if pd.isna(row["low"]):
        return "–"
    scale = 100 if metric.in_percent else 1
    difference, low, high = (signed(scale * row[key]) for key in ("difference", "low", "high"))
    return f"{difference} ({low} to {high})"


def headline(metrics: pd.DataFrame, compared: pd.DataFrame, experiment: str, rule: Rule) -> dict:
    """What to know first: a sentence, and the numbers it rests on.

    It is about the primary metric of held-out prompts, or of the named ones when there are no
    held-out ones, and about which part changed: form or content.
    """
    mine = metrics[(metrics["experiment"] == experiment) & (metrics["family"] == ALL)]
    split = "held_out" if (mine["split"] == "held_out").any() else "named"
    rows = mine[mine["split"] == split].set_index("metric")
    asked = compared[(compared["experiment"] == experiment) & (compared["split"] == split)]
    changed = float(asked["changed"].mean())
    place = "held-out" if split == "held_out" else "named"
    if rule.primary not in rows.index:
        return {
            "says": "unknown",
            "title": f"Fine-tuning changed {percent(changed)} of the answers",
            "text": f"No {place} prompt has a reference, so nobody can say whether for the better.",
        }
    row, metric = rows.loc[rule.primary], BY_NAME[rule.primary]
    before, after = scored(row["before"], metric), scored(row["after"], metric)
    what = "answered exactly right" if rule.primary == "exact" else f"in {_within(metric.title)}"
    part, more = _part(rows, asked, rule.primary) if changed else ("", "")
    titles = {
        BETTER: f"Fine-tuning took {place} questions from {before} to {after} {what}{part}",
        WORSE: f"Fine-tuning made {place} answers worse: from {before} to {after} {what}{part}",
        AS_GOOD: f"As good as before: {before} before, {after} after, {what}{part}",
        OPEN: f"No difference can be told: {before} before, {after} after, {what}{part}",
    }
    if not changed:
        titles = dict.fromkeys(titles, "No difference: not one answer changed")
    p = row["p_adjusted"]
    return {
        "says": row["says"],
        "title": titles[row["says"]],
        "text": (
            f"{place.capitalize()} {_within(metric.title)} {before} → {after} (n = {int(row['n'])} "
            f"questions about {int(row['pictures'])} pictures; difference and "
            f"{percent(rule.confidence)} CI {span(row, metric)}"
            f"{' points' if metric.in_percent else ''}, corrected p {'' if p < 0.001 else '= '}"
            f"{p_value(p)}). {percent(changed)} of the answers changed.{more}"
        ),
    }


def _within(title: str) -> str:
    """A metric's title within a sentence."""
    return title if title[1:2].isupper() or title == "chrF" else title[0].lower() + title[1:]


def _part(rows: pd.DataFrame, asked: pd.DataFrame, primary: str) -> tuple[str, str]:
    """Which part changed, form or content: an end for the title, and sentences for the text."""
    content, metric = rows.loc["content"], BY_NAME["content"]
    before, after = scored(content["before"], metric), scored(content["after"], metric)
    found = (
        f" Of the references' key words, numbers and boxes the answers held {before} before and "
        f"{after} after, whatever their form."
    )
    known = asked[asked["reference"].notna()]
    if forms_differ(known["before"], known["after"]) >= MOST:
        boxes = [
            percent(sum(form(text) == "box" for text in known[stage]) / len(known))
            for stage in ("before", "after")
        ]
        return ": the form of the answers changed", (
            f" The form changed: {boxes[0]} of the answers pointed with a box before, {boxes[1]} "
            f"after.{found} An answer that points need not say in words what the model knows, so these "
            "answers can't tell how much of the difference is new knowledge and how much another "
            "way of answering."
        )
    if primary == "content":
        return "", ""
    told = rows.loc[primary, "says"] in (BETTER, WORSE)
    if content["says"] in (BETTER, WORSE):
        return f": the content got {content['says']}", found
    if content["says"] == AS_GOOD:
        return (": only the form changed" if told else ""), f"{found} Their content is as good."
    return "", f"{found} Whether the content changed can't be told."


def data_words(conversion: Mapping, asked: int | None, questions: int) -> str:
    """What was trained on, held out, dropped, and asked; `asked`: how many were to be asked."""
    images, dropped = conversion["images"], sum(conversion["dropped"].values())
    words = (
        f"{conversion['kept']['train']:,} conversations about {images['train']:,} pictures; "
        f"{images['held_out']:,} pictures held out"
    )
    if dropped:
        words += f"; {dropped:,} of {conversion['records']:,} records dropped"
    if asked is not None and questions < asked:
        words += f"; {questions:,} held-out questions, fewer than the {asked:,} to be asked"
    return words


def facts(provenance: Mapping, conversion: Mapping, questions: int) -> list[tuple[str, str]]:
    """Model, data, settings, engine and machine, a line each. questions: held-out ones."""
    config, machine = provenance["config"], provenance["hardware"]
    train, base = config["train"], provenance["weights"]["base"]
    engine = config["engine"]
    own = config.get(engine, {})
    frozen = [name for name in ("vision_encoder", "vision_projector") if train[f"freeze_{name}"]]
    return [
        ("Model", f"{base['name']}, {base['parameters'] / 1e6:,.1f} million parameters"),
        (
            "Data",
            data_words(conversion, config["prompts"]["held_out_questions"], questions),
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
