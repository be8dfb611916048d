"""The sentences and numbers of the page, in one language; `words` has its words."""

from collections.abc import Iterator, Mapping

import pandas as pd

from mindtune.comparison.content import form, forms_differ
from mindtune.comparison.metrics import BY_NAME, Metric
from mindtune.comparison.tables import ALL
from mindtune.comparison.verdicts import AS_GOOD, BETTER, WORSE, Rule
from mindtune.report.sweep import LATER
from mindtune.report.words import ENGLISH, Words

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
    if value is None or pd.isna(value):
        return "–"
    return f"{value:z,.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 1) -> str:
    """A difference, with its sign, a real minus, and no sign where it rounds to nothing."""
    text = f"{value:+,.{digits}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text[1:]


def p_value(p: float) -> str:
    if pd.isna(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float, words: Words = ENGLISH) -> str:
    if seconds < 120:
        return words("number.seconds", n=f"{seconds:.0f}")
    if seconds < 7200:
        return words("number.minutes", n=f"{seconds / 60:.0f}")
    return words("number.hours", n=f"{seconds / 3600:.1f}")


def scored(value: float | None, metric: Metric) -> str:
    """A score as its metric is shown: in per cent, in seconds with three decimals, or plain."""
    if value is None or pd.isna(value):
        return "–"
    if metric.in_percent:
        return percent(value)
    return number(value, 3 if metric.name == "seconds" else 1)


def span(row: Mapping, metric: Metric, words: Words = ENGLISH) -> str:
    """A difference with its interval, in points where the metric is in per cent."""
    if pd.isna(row["low"]):
        return "–"
    scale = 100 if metric.in_percent else 1
    difference, low, high = (signed(scale * row[key]) for key in ("difference", "low", "high"))
    return words("number.interval", difference=difference, low=low, high=high)


def headline(
    metrics: pd.DataFrame,
    compared: pd.DataFrame,
    experiment: str,
    rule: Rule,
    words: Words = ENGLISH,
) -> dict:
    """What to know first: a sentence, and the numbers it rests on.

    It is about the primary metric of held-out prompts, or of the named ones when there are no
    held-out ones, and about which part changed: form or content.
    """
    mine = metrics[(metrics["experiment"] == experiment) & (metrics["family"] == ALL)]
    split = "held_out" if (mine["split"] == "held_out").any() else "named"
    rows = mine[mine["split"] == split].set_index("metric")
    asked = compared[(compared["experiment"] == experiment) & (compared["split"] == split)]
    changed = float(asked["changed"].mean())
    place = words.of("split", split)
    if rule.primary not in rows.index:
        return {
            "says": "unknown",
            "title": words("headline.unknown", changed=percent(changed)),
            "text": words("headline.unknown_text", place=place),
        }
    row, metric = rows.loc[rule.primary], BY_NAME[rule.primary]
    part, more = _part(rows, asked, rule.primary, words) if changed else ("", "")
    found = {
        "before": scored(row["before"], metric),
        "after": scored(row["after"], metric),
        "metric": _within(words(f"metric.{metric.name}")),
    }
    kind = "exact" if rule.primary == "exact" else "metric"
    title = words(f"headline.{kind}.{row['says']}", place=place, part=part, **found)
    p = row["p_adjusted"]
    return {
        "says": row["says"],
        "title": title if changed else words("headline.unchanged"),
        "text": words(
            "headline.text",
            place=place.capitalize(),
            n=int(row["n"]),
            pictures=int(row["pictures"]),
            confidence=percent(rule.confidence),
            span=span(row, metric, words),
            points=words("number.points") if metric.in_percent else "",
            p=f"{'' if p < 0.001 else '= '}{p_value(p)}",
            changed=percent(changed),
            **found,
        )
        + more,
    }


def _within(title: str) -> str:
    """A metric's title within a sentence."""
    return title if title[1:2].isupper() or title == "chrF" else title[0].lower() + title[1:]


def _part(rows: pd.DataFrame, asked: pd.DataFrame, primary: str, words: Words) -> tuple[str, str]:
    """Which part changed, form or content: an end for the title, and sentences for the text."""
    content, metric = rows.loc["content"], BY_NAME["content"]
    stages = ("before", "after")
    found = words("headline.content", **{stage: scored(content[stage], metric) for stage in stages})
    known = asked[asked["reference"].notna()]
    if forms_differ(known["before"], known["after"]) >= MOST:
        boxes = {
            stage: percent(sum(form(text) == "box" for text in known[stage]) / len(known))
            for stage in stages
        }
        more = words("headline.form", **boxes) + found + words("headline.form_open")
        return words("headline.part.form"), more
    if primary == "content":
        return "", ""
    told = rows.loc[primary, "says"] in (BETTER, WORSE)
    if content["says"] in (BETTER, WORSE):
        return words(f"headline.part.{content['says']}"), found
    if content["says"] == AS_GOOD:
        part = words("headline.part.form_only") if told else ""
        return part, found + words("headline.content_as_good")
    return "", found + words("headline.content_open")


def data_words(
    conversion: Mapping, asked: int | None, questions: int, words: Words = ENGLISH
) -> str:
    """What was trained on, held out, dropped, and asked; `asked`: how many were to be asked."""
    images = conversion["images"]
    text = words(
        "facts.data_text",
        conversations=f"{conversion['kept']['train']:,}",
        pictures=f"{images['train']:,}",
        held_out=f"{images['held_out']:,}",
    )
    return text + more_data_words(conversion, asked, questions, words)


def more_data_words(conversion: Mapping, asked: int | None, questions: int, words: Words) -> str:
    """What was dropped, and how many questions are lacking."""
    text, dropped = "", sum(conversion["dropped"].values())
    if dropped:
        records = f"{conversion['records']:,}"
        text += words("facts.dropped", dropped=f"{dropped:,}", records=records)
    if asked is not None and questions < asked:
        text += words("facts.fewer", questions=f"{questions:,}", asked=f"{asked:,}")
    return text


def facts(
    provenance: Mapping, conversion: Mapping, questions: int, words: Words = ENGLISH
) -> list[tuple[str, str]]:
    """Model, data, settings, engine and machine, a line each. questions: held-out ones."""
    config, base = provenance["config"], provenance["weights"]["base"]
    millions = f"{base['parameters'] / 1e6:,.1f}"
    asked = config["prompts"]["held_out_questions"]
    if "train" in config:
        data = data_words(conversion, asked, questions, words)
        settings = _settings(config["train"], words)
    else:
        data = words("facts.data_elsewhere", questions=f"{questions:,}")
        data += more_data_words(conversion, asked, questions, words)
        settings = words("facts.settings_elsewhere")
    found = {
        "model": words("facts.model_text", name=base["name"], millions=millions),
        "data": data,
        "settings": settings,
        "engine": _engine(config, provenance["packages"], words),
        "machine": _machine(provenance["hardware"], words),
    }
    return [(words(f"facts.{name}"), text) for name, text in found.items()]


def _settings(train: Mapping, words: Words) -> str:
    parts = [name for name in ("vision_encoder", "vision_projector") if train[f"freeze_{name}"]]
    named = words("list.and").join(words(f"facts.part.{name}") for name in parts)
    return words(
        "facts.settings_text",
        iterations=train["train_iters"],
        batch=train["global_batch_size"],
        rate=f"{train['lr']:g}",
        style=train["lr_decay_style"],
        frozen=words("facts.frozen", parts=named) if parts else words("facts.nothing_frozen"),
    )


def _engine(config: Mapping, packages: Mapping[str, str], words: Words) -> str:
    own = config.get(config["engine"], {})
    return words(
        "facts.engine_text",
        engine=config["engine"],
        device=own.get("device", words("facts.its_device")),
        precision=own.get("precision", ""),
        torch=packages.get("torch", "?"),
        transformers=packages.get("transformers", "?"),
    )


def _machine(machine: Mapping, words: Words) -> str:
    return words("list.comma").join(machine["accelerators"]) or words(
        "facts.machine_text",
        processor=machine["processor"],
        cores=machine["cores"],
        memory=machine["memory_gib"],
    )


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

    def counts(name: str, key: str) -> bool:
        """Whether the key's section is of any use to an experiment: one may train nothing."""
        return key.split(".")[0] in provenance[name]["config"]

    varied = [
        key
        for key in keys
        if key == "tuned_model"
        or len({one.get(key) for name, one in flats.items() if counts(name, key)}) > 1
    ]
    before = {key: flat({key: value})[key] for key, value in LATER.items()}
    return {
        name: {key: one.get(key, before.get(key, "–")) for key in varied if counts(name, key)}
        for name, one in flats.items()
    }
