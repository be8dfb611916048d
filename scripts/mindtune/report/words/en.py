"""The English words."""

WORDS = {
    # Values of the tables' columns, and names of metrics
    "says.better": "better",
    "says.worse": "worse",
    "says.as good": "as good",
    "says.can't tell": "can't tell",
    "outcome.improved": "improved",
    "outcome.worse": "worse",
    "outcome.unchanged": "unchanged",
    "outcome.changed": "changed",
    "split.held_out": "held-out",
    "split.named": "named",
    "family.all": "all",
    "family.other": "other",
    "metric.exact": "Exact match",
    "metric.content": "Content in any form",
    "metric.chrf": "chrF",
    "metric.bleu": "BLEU",
    "metric.rouge_l": "ROUGE-L",
    "metric.words": "Length in words",
    "metric.box": "Has a box",
    "metric.empty": "Empty",
    "metric.repeated": "Repeats itself",
    "metric.cut": "Cut at max_new_tokens",
    "metric.tokens": "Tokens",
    "metric.seconds": "Seconds",
    "metric.tokens_per_second": "Tokens per second",
    # Numbers
    "number.seconds": "{n} s",
    "number.minutes": "{n} min",
    "number.hours": "{n} h",
    "number.interval": "{difference} ({low} to {high})",
    "number.ci": "{confidence} CI",
    "number.margin": "{points} points of a hundred",
    "number.points": " points",
    "list.comma": ", ",
    "list.and": " and ",
    "list.semicolon": "; ",
    # The headline. `part` is one of headline.part.*, or nothing.
    "headline.unknown": "Fine-tuning changed {changed} of the answers",
    "headline.unknown_text": "No {place} prompt has a reference, so nobody can say whether for the better.",
    "headline.unchanged": "No difference: not one answer changed",
    "headline.exact.better": "Fine-tuning took {place} questions from {before} to {after} answered exactly right{part}",
    "headline.exact.worse": "Fine-tuning made {place} answers worse: from {before} to {after} answered exactly right{part}",
    "headline.exact.as good": "As good as before: {before} before, {after} after, answered exactly right{part}",
    "headline.exact.can't tell": "No difference can be told: {before} before, {after} after, answered exactly right{part}",
    "headline.metric.better": "Fine-tuning took {place} questions from {before} to {after} in {metric}{part}",
    "headline.metric.worse": "Fine-tuning made {place} answers worse: from {before} to {after} in {metric}{part}",
    "headline.metric.as good": "As good as before: {before} before, {after} after, in {metric}{part}",
    "headline.metric.can't tell": "No difference can be told: {before} before, {after} after, in {metric}{part}",
    "headline.text": (
        "{place} {metric} {before} → {after} (n = {n} questions about {pictures} pictures; difference and "
        "{confidence} CI {span}{points}, corrected p {p}). {changed} of the answers changed."
    ),
    "headline.content": (
        " Of the references' key words, numbers and boxes the answers held {before} before and {after} "
        "after, whatever their form."
    ),
    "headline.part.form": ": the form of the answers changed",
    "headline.part.form_only": ": only the form changed",
    "headline.part.better": ": the content got better",
    "headline.part.worse": ": the content got worse",
    "headline.form": (
        " The form changed: {before} of the answers pointed with a box before, {after} after."
    ),
    "headline.form_open": (
        " An answer that points need not say in words what the model knows, so these answers can't "
        "tell how much of the difference is new knowledge and how much another way of answering."
    ),
    "headline.content_as_good": " Their content is as good.",
    "headline.content_open": " Whether the content changed can't be told.",
    # The facts beside it
    "facts.model": "Model",
    "facts.model_text": "{name}, {millions} million parameters",
    "facts.data": "Data",
    "facts.data_text": (
        "{conversations} conversations about {pictures} pictures; {held_out} pictures held out"
    ),
    "facts.dropped": "; {dropped} of {records} records dropped",
    "facts.fewer": "; {questions} held-out questions, fewer than the {asked} to be asked",
    "facts.data_elsewhere": "{questions} held-out questions; what the model was trained on isn't known here",
    "facts.settings_elsewhere": "trained elsewhere, so they aren't known here",
    "facts.settings": "Settings",
    "facts.settings_text": "{iterations} iterations of {batch}, learning rate {rate} ({style}), {frozen}",
    "facts.frozen": "frozen: {parts}",
    "facts.nothing_frozen": "nothing frozen",
    "facts.part.vision_encoder": "vision encoder",
    "facts.part.vision_projector": "vision projector",
    "facts.engine": "Engine",
    "facts.engine_text": "{engine} on {device}, {precision}; torch {torch}, transformers {transformers}",
    "facts.its_device": "its device",
    "facts.machine": "Machine",
    "facts.machine_text": "{processor}, {cores} cores, {memory} GiB",
    # The page's frame
    "page.title": "What the fine-tuning did · mindtune",
    "page.tagline": "what the fine-tuning did",
    "page.skip": "Skip to the content",
    "page.sections": "Sections",
    "page.experiments": "Experiments",
    "page.sweep": "Sweep",
    "page.seeing": "Seen or guessed",
    "page.families": "By question",
    "page.metrics": "Metrics",
    "page.training": "Training",
    "page.answers": "Answers",
    "page.provenance": "Provenance",
    "page.best": "Best of {n} experiments: {best}",
    "page.elsewhere": "Trained elsewhere, and only compared here: {names}",
    "page.scroll": "More columns to the right: scroll the table sideways →",
    "page.separator": ": ",
    # Columns and words of several tables
    "table.experiment": "Experiment",
    "table.before": "Before",
    "table.after": "After",
    "table.p": "p, corrected",
    "table.in_words": "In words",
    "table.points": "Points ({ci})",
    "table.difference": "Difference ({ci})",
    "table.nothing": "nothing",
    # The example
    "example.alt": "The picture {name}, about which the question is",
    "example.seen_why": "Training saw this picture: the answer may be remembered",
    "example.held_out": "held out",
    "example.not_in_training": "not in training",
    "example.unknown": "not known whether training saw it",
    "example.frame_html": "The frame is where <em>before</em> points.",
    # The experiments' ranking
    "ranking.title": "Experiments, the best first",
    "ranking.note": (
        "By {primary} of the answers after fine-tuning. “Worse” is said where p, corrected for all "
        "pairs of experiments, is below {level} and the interval keeps clear of zero; “as good” where "
        "the whole interval lies within {margin}; “can't tell” otherwise. The first is the best of "
        "several, and so looks a little better than it is."
    ),
    "ranking.label": "Ranking of the experiments",
    "ranking.differs": "What differs",
    "ranking.behind": "Behind the first ({ci})",
    "ranking.held_out_loss": "Held-out loss",
    "ranking.beside": "Beside the first",
    "ranking.first": "first",
    "ranking.other_questions": "other questions",
    # Several trainings: seeds, parameters, and what went wrong
    "sweep.title": "Over seeds and parameters",
    "sweep.note_html": (
        "A row is all trainings that are alike in everything but <code>train.order_seed</code> and "
        "<code>train.seed</code>: the mean of their {primary} after fine-tuning, and its standard deviation "
        "from training to training. Trainings that ended with the same weights count once, those that "
        "diverged are in no number. Intervals and verdicts elsewhere on this page are about other "
        "questions to these same models; this spread is about other trainings."
    ),
    "sweep.label": "Mean and spread over seeds",
    "sweep.trainings": "Different trainings",
    "sweep.mean": "Mean",
    "sweep.deviation": "Standard deviation",
    "sweep.range": "Lowest to highest",
    "sweep.span": "{low} to {high}",
    "sweep.rose": "Loss rose",
    "sweep.diverged": "Diverged",
    "sweep.diverged_one": "diverged",
    "sweep.plot": (
        "{primary} after fine-tuning against each number that was varied; the values are in the tables"
    ),
    "course.diverged": "diverged",
    "course.rose": "loss rose",
    "course.no_model": "no model",
    "course.note": (
        "“Diverged”: the loss was no longer a number; such a training has no model and no answers. “Loss "
        "rose”: its mean over the last tenth of the iterations (five at least) is above that over the first "
        "tenth by more than three standard errors."
    ),
    # The same questions with other pictures
    "seeing.title": "What is seen, and what is guessed",
    "seeing.note": (
        "The held-out questions, asked again with a grey picture of the same size or with another picture "
        "of the set; all scores are of the primary metric, {primary}. Seen is the difference between before and after with the question's "
        "own picture, minus the difference with the other one, with its {confidence} interval: what "
        "the model gained by looking. The rest comes without the right picture: from the question, from "
        "usual answers, or from the form of an answer."
    ),
    "seeing.label": "The same questions with other pictures, {name}",
    "seeing.own_before": "Own picture, before",
    "seeing.own_after": "after",
    "seeing.blind_before": "Grey, before",
    "seeing.blind_after": "after",
    "seeing.shuffled_before": "Another, before",
    "seeing.shuffled_after": "after",
    "seeing.seen": "Seen ({ci})",
    "seeing.line": (
        "{metric} after fine-tuning: {own} with the picture, {others}. The part of the difference of "
        "{difference}{points} that takes seeing the picture: {parts}."
    ),
    "seeing.after.blind": "{value} with a grey one",
    "seeing.after.shuffled": "{value} with another one",
    "seeing.part.blind": "{seen} against a grey one",
    "seeing.part.shuffled": "{seen} against another one",
    # Kinds of question
    "families.title": "Right answers by kind of question",
    "families.note": (
        "Normalised exact match; thin lines are {confidence} intervals. n counts questions. Those about "
        "one picture hang together, which the intervals of the differences allow for. Content is the "
        "share of the reference's key words, numbers and boxes that an answer holds, whatever its form. "
        "p and verdicts are corrected for all experiments, kinds of question and judged metrics "
        "({judged}) together."
    ),
    "families.label": "Right answers by kind of question, {name}",
    "families.family": "Family",
    "families.bars": "Before and after",
    "families.content_before": "Content before",
    "families.content_after": "after",
    "families.none": "No prompt has a reference.",
    # Every metric
    "metrics.title": "Every metric",
    "metrics.note": (
        "All held-out questions, or all named ones where nothing is held out. chrF, BLEU and ROUGE-L are "
        "means over answers, 0 to 100. The primary metric is {primary}, fixed before any answer was "
        "looked at. Only {judged} have a verdict: “better” or “worse” where the corrected p is below "
        "{level} and the interval keeps clear of zero, “as good” where the whole interval lies within "
        "{margin}, and “can't tell” otherwise. The others are there to be looked at. Times are medians."
    ),
    "metrics.label": "Every metric, {name}",
    "metrics.metric": "Metric",
    "metrics.primary": " (primary)",
    "metrics.median": " (median)",
    # The training, and its curves
    "training.title": "Training",
    "training.elsewhere": "Trained elsewhere, so without curves: {names}.",
    "training.curves": (
        "Curves of loss, held-out loss, learning rate and seconds per iteration; the last values are in "
        "the table below"
    ),
    "training.label": "Last values of the training",
    "training.iterations": "Iterations",
    "training.loss": "Last loss",
    "training.held_out_loss": "Last held-out loss",
    "training.seconds": "Seconds per iteration (median)",
    "curves.loss": "Loss",
    "curves.loss_dots": "Loss (dots: held-out)",
    "curves.training": "training",
    "curves.held_out": "held-out",
    "curves.rate": "Learning rate",
    "curves.seconds": "Seconds per iteration",
    "curves.iteration": "iteration",
    # The gallery
    "answers.title": "All answers",
    "answers.noscript": (
        "This list needs the page's own script, which is switched off. The answers are in compare.csv, below."
    ),
    "answers.search": "Search",
    "answers.search_where": "in questions, references and answers",
    "answers.outcome": "Outcome",
    "answers.family": "Family",
    "answers.split": "Split",
    "answers.experiment": "Experiment",
    "answers.all": "all",
    "answers.sort": "Sort",
    "answers.order": "as asked",
    "answers.gain": "most improved first",
    "answers.loss": "most worsened first",
    "answers.worst": "lowest chrF after first",
    "answers.longest": "longest answer after first",
    "answers.marks_html": (
        '<mark class="off">Marked words</mark> are not in the reference, in this order; where nobody gave '
        "a reference, not in the other answer."
    ),
    "answers.more": "Show more",
    "answers.close": "Close",
    "answers.previous": "← Previous",
    "answers.next": "Next →",
    # Words of the page and of its script
    "script.before": "Before",
    "script.after": "After",
    "script.reference": "Reference",
    "script.blind_after": "After, shown a grey picture",
    "script.shuffled_after": "After, shown another picture",
    "script.no_answer": "(no answer)",
    "script.no_reference": "(nobody gave one)",
    "script.same": "the same as after",
    "script.seen": "seen in training",
    "script.right": "exactly right",
    "script.absent": "{name} is left out to keep this page small",
    "script.picture": "Picture {name}",
    "script.open": "Open {names}: {prompt}",
    "script.separator": ", ",
    "script.count": "{chosen} of {total} answers, {right} exactly right after fine-tuning; {shown} shown.",
    "script.nothing_fits": "No answer fits. Clear the search, or choose “all”.",
    "script.likeness": "chrF {before} before, {after} after. ",
    # Where everything comes from
    "provenance.title": "Provenance",
    "provenance.tables": "The tables behind this page:",
    "provenance.summary": "{name}: software, machine, checksums, time",
    "provenance.label": "Provenance of {name}",
    "provenance.workflow": "Workflow",
    "provenance.commit_html": "commit <code>{commit}</code>",
    "provenance.dirty": " with uncommitted changes",
    "provenance.no_commit": "not from a git checkout",
    "provenance.machine": "Machine",
    "provenance.machine_text": "{platform}; {processor}, {cores} cores, {memory} GiB",
    "provenance.packages": "Packages",
    "provenance.instructions": "Instructions",
    "provenance.pictures": "Pictures",
    "provenance.pictures_text": "{path}, {n} files",
    "provenance.names_and_sizes": " (names and sizes)",
    "provenance.base": "Base weights",
    "provenance.base_text": "{name}, {n} parameters",
    "provenance.tuned": "Tuned weights",
    "provenance.elsewhere": "trained elsewhere: {path}",
    "provenance.seeds": "Seeds",
    "provenance.time": "Time per rule",
    "provenance.not_measured": "not measured",
    "provenance.settings": "{name}: all settings",
    "provenance.settings_label": "Settings of {name}",
    # What can't be concluded
    "reading.title": "What can't be concluded",
    "reading.elsewhere": (
        "What the models trained elsewhere ({names}) were trained on isn't known here. If these pictures or "
        "questions were among it, their answers may be remembered, and others would fare worse."
    ),
    "reading.source": (
        "Held-out pictures come from the same source as the training's. That other pictures fare as well "
        "isn't shown here."
    ),
    "reading.seed_html": (
        "Each experiment is one training with one seed. How much another seed would change it isn't shown "
        "here; a sweep over <code>train.order_seed</code> would."
    ),
    "reading.seeds_html": (
        "A verdict is about these trainings. How much another order of the samples changes is known from as "
        "many trainings as the table over seeds has, and for those settings only."
    ),
    "reading.verdicts": (
        "Verdicts are corrected for their number: if fine-tuning changed nothing, any “better” or “worse” "
        "among the questions and metrics would have a probability of {level}{ranking}. Intervals are not "
        "corrected, and differences without a verdict are there to be looked at, not picked from."
    ),
    "reading.ranking": ", and so would any “worse” in the ranking of equal experiments",
    "reading.strict": (
        "Exact match is strict: a right answer in other words counts as wrong. chrF, BLEU and ROUGE-L "
        "reward likeness, content finds words whatever is said around them: none of them measures truth."
    ),
    # samples.png
    "sheet.title": "Before and after fine-tuning",
    "sheet.note": (
        "Experiment {experiment}: the first question and {n} of {others} others, taken at equal distances. "
        "Frames: where the answer before points."
    ),
    "sheet.before": "before",
    "sheet.after": "after",
    "sheet.reference": "reference",
    "sheet.seen": "  (seen in training)",
}
