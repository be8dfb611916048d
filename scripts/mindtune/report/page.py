"""report.html: all that is known of a run, on one page that needs nothing else.

Texts of models and data reach the page on two ways only: through the template, which
escapes them, and as JSON, from which the page's script makes text nodes. The page's own
content security policy runs no script but ours, whatever an escape might have missed.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mindtune.comparison.answers import pictures_in, was_seen
from mindtune.comparison.metrics import BY_NAME
from mindtune.comparison.scores import rank
from mindtune.comparison.tables import ALL
from mindtune.comparison.text import boxes
from mindtune.comparison.verdicts import Rule
from mindtune.report import wording
from mindtune.report.curves import training_svg
from mindtune.report.pictures import data_uri, embed
from mindtune.report.seeing import seeing
from mindtune.report.sweep import Training, course, groups, leaves, parameters
from mindtune.report.sweep_plot import sweep_svg
from mindtune.report.words import ENGLISH, Words

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_BUDGET = 3_400_000
LARGE = (800, 80)
MOST_ALONE = 2  # trainings that make no sweep
# What a document of each language says it is in.
LANGUAGES = {"en": "en", "zh": "zh-Hans"}
GALLERY = (
    "experiment", "split", "family", "image", "image_in_training", "prompt", "reference",
    "before", "after", "exact_before", "exact_after", "chrf_before", "chrf_after", "verdict",
)  # fmt: skip
# What was said with other pictures, in a run with controls.
OTHERS = ("blind_after", "shuffled_after")


@dataclass(frozen=True)
class Run:
    """What a page is made of. provenance and conversions: by experiment.

    losses: of the experiments whose models were trained here.
    """

    compared: pd.DataFrame
    summary: pd.DataFrame
    scores: pd.DataFrame
    metrics: pd.DataFrame
    losses: Mapping[str, pd.DataFrame]
    conversions: Mapping[str, Mapping]
    provenance: Mapping[str, Mapping]
    images: Path
    files: Mapping[str, Path]
    rule: Rule
    words: Words = ENGLISH

    @property
    def experiments(self) -> list[str]:
        return list(self.provenance)

    @property
    def elsewhere(self) -> list[str]:
        """The experiments whose models were trained elsewhere."""
        return [name for name in self.provenance if name not in self.losses]

    @property
    def answered(self) -> list[str]:
        """The experiments that have answers: those whose training did not diverge."""
        return list(dict.fromkeys(self.compared["experiment"]))


def render(run: Run) -> str:
    """The page."""
    answered = run.answered
    ranking = rank(run.scores, answered, run.rule)
    best = ranking[0]["experiment"] if ranking else answered[0]
    of_best = run.compared["experiment"].eq(best)
    held_out_questions = int((of_best & run.compared["split"].eq("held_out")).sum())
    words = run.words
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "number": wording.number,
        "signed": wording.signed,
        "p_value": wording.p_value,
        "duration": partial(wording.duration, words=words),
        "scored": wording.scored,
        "span": partial(wording.span, words=words),
        "word": lambda value, group: words.of(group, value),
    }
    return environment.get_template("report.html.j2").render(
        say=words,
        lang=LANGUAGES[words.language],
        headline=wording.headline(run.metrics, run.compared, best, run.rule, words),
        facts=wording.facts(run.provenance[best], run.conversions[best], held_out_questions, words),
        best=best,
        experiments=run.experiments,
        answered=answered,
        courses={name: course(rows) for name, rows in run.losses.items()},
        sweep=sweep(run, ranking),
        elsewhere=run.elsewhere,
        ranking=ranking,
        differing=wording.differing_settings(run.provenance),
        example=example(run, best),
        seeing=seeing(run.metrics, run.summary, best, run.rule, words),
        families=families(run),
        metrics=metric_rows(run.metrics),
        rule=run.rule,
        primary=BY_NAME[run.rule.primary],
        judged=[words(f"metric.{name}") for name in run.rule.judged],
        titles=words.group("metric"),
        curves=curves(run),
        final=final_losses(run.losses),
        provenance=run.provenance,
        flat={name: wording.flat(found["config"]) for name, found in run.provenance.items()},
        downloads={name: download(path) for name, path in run.files.items()},
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded_json(gallery(run))),  # noqa: S704
    )


def curves(run: Run) -> dict[str, Markup]:
    """Curves for wide and for narrow windows; none where nothing was trained."""
    if not run.losses:
        return {}
    return {
        width: Markup(  # noqa: S704
            training_svg(run.losses, run.words, wide=width == "wide", for_page=True)
        )
        for width in ("wide", "narrow")
    }


def embedded_json(value: object) -> str:
    """JSON that can stand within a script element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def sweep(run: Run, ranking: Sequence[Mapping]) -> dict | None:
    """Means over seeds and plots over parameters; None for MOST_ALONE trainings or fewer."""
    found = trainings(run, ranking)
    if len(found) <= MOST_ALONE:
        return None
    points = parameters(found)
    metric = BY_NAME[run.rule.primary]
    rows = groups(found)
    return {
        "groups": [(row, wording.flat(row.differing)) for row in rows],
        "repeated": any(len(row.values) > 1 for row in rows),
        "plots": {
            kind: Markup(sweep_svg(points, metric, run.words, wide=kind == "wide"))  # noqa: S704
            for kind in (("wide", "narrow") if points else ())
        },
    }


def trainings(run: Run, ranking: Sequence[Mapping]) -> list[Training]:
    """The experiments that were trained here, in their order."""
    values = {row["experiment"]: row["value"] for row in ranking}
    return [
        Training(
            name,
            leaves(run.provenance[name]["config"]),
            values.get(name),
            run.provenance[name]["weights"]["tuned"]["sha256"],
            course(rows),
        )
        for name, rows in run.losses.items()
    ]


def example(run: Run, experiment: str) -> dict:
    """The first named prompt, or else the first of all, with its picture large."""
    row = run.compared[run.compared["experiment"] == experiment].iloc[0]
    return {
        **{key: row[key] for key in ("prompt", "before", "after", "image", "split")},
        "reference": None if pd.isna(row["reference"]) else row["reference"],
        "seen": was_seen(row["image_in_training"]),
        "elsewhere": experiment in run.elsewhere,
        "pictures": [
            {"name": name, "uri": data_uri(run.images / name, *LARGE)}
            for name in pictures_in(row["image"])
        ],
        "boxes": {stage: boxes_to_draw(row, stage) for stage in ("before", "after")},
    }


def boxes_to_draw(row: Mapping, stage: str) -> list[tuple[int, int, int, int]]:
    """The boxes of an answer; none where there are several pictures: it doesn't say in which."""
    return boxes(row[stage]) if len(pictures_in(row["image"])) == 1 else []


def families(run: Run) -> dict[str, list[dict]]:
    """Lines of the summary by experiment, held-out ones when there are any; `all` first.

    Each with its line of metrics.csv for every judged metric.
    """
    split = "held_out" if (run.summary["split"] == "held_out").any() else "named"
    judged = run.metrics[(run.metrics["split"] == split) & run.metrics["says"].ne("")]
    lines = {
        (row["experiment"], row["family"], row["metric"]): row for row in judged.to_dict("records")
    }
    found = {}
    for name in run.answered:
        part = run.summary[(run.summary["experiment"] == name) & (run.summary["split"] == split)]
        rows = [
            {**row, **{metric: lines[name, row["family"], metric] for metric in run.rule.judged}}
            for row in part.to_dict("records")
        ]
        found[name] = sorted(rows, key=lambda row: row["family"] != ALL)
    return found


def metric_rows(metrics: pd.DataFrame) -> dict[str, list[dict]]:
    """What all answers of a split come to, by experiment; held-out ones when there are any."""
    split = "held_out" if (metrics["split"] == "held_out").any() else "named"
    part = metrics[(metrics["split"] == split) & (metrics["family"] == ALL)]
    return {
        name: [{**row, "shown": BY_NAME[row["metric"]]} for row in rows.to_dict("records")]
        for name, rows in part.groupby("experiment", sort=False)
    }


def final_losses(losses: Mapping[str, pd.DataFrame]) -> dict[str, dict]:
    """The last loss, the last held-out loss and the usual time of an iteration."""
    found = {}
    for name, rows in losses.items():
        held_out = rows["held_out_loss"].dropna()
        found[name] = {
            "iterations": int(rows["iteration"].iloc[-1]),
            "loss": float(rows["loss"].iloc[-1]),
            "held_out": float(held_out.iloc[-1]) if len(held_out) else None,
            "seconds": float(rows["ms_per_iteration"].median()) / 1000,
        }
    return found


def gallery(run: Run) -> dict:
    """The rows of the gallery as columns, with the pictures that fit."""
    rows = run.compared.merge(
        run.scores[["experiment", "id", "chrf_before", "chrf_after", "verdict"]],
        on=["experiment", "id"],
        how="left",
        validate="one_to_one",
    )
    asked = {name: place for place, name in enumerate(dict.fromkeys(rows["id"]))}
    # What several experiments say to one prompt stands side by side.
    rows = rows.sort_values("id", key=lambda ids: ids.map(asked), kind="stable")
    others = [name for name in OTHERS if name in rows]
    names = rows["image"].map(pictures_in)
    pictures = embed(run.images, names.explode(), PICTURE_BUDGET)
    return {
        "experiments": run.answered,
        "words": script_words(run.words),
        "pictures": pictures,
        "columns": {
            **{name: _plain(rows[name]) for name in (*GALLERY, *others)},
            "image": names.tolist(),
            **{
                f"boxes_{stage}": [boxes_to_draw(row, stage) for row in rows.to_dict("records")]
                for stage in ("before", "after")
            },
        },
    }


def script_words(words: Words) -> dict[str, str]:
    """What the page's script says, and the words for values of the columns."""
    values = {
        f"{group}.{value}": text
        for group in ("outcome", "family", "split")
        for value, text in words.group(group).items()
    }
    return words.group("script") | values


def _plain(column: pd.Series) -> Sequence:
    values = column.astype(object).where(column.notna(), None).tolist()
    return [round(value, 1) if isinstance(value, float) else value for value in values]


def download(path: Path) -> str:
    """A file as a `data:` address."""
    return "data:text/csv;base64," + base64.b64encode(path.read_bytes()).decode()
