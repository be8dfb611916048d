# The checked configuration, and where everything is. A dry run writes no file but a lock.

import os
import re
import sys
from pathlib import Path

SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from mindtune.settings import LAYOUT, SHARED, STAGES, Configuration
from mindtune.checkpoint.peft_adapter import is_adapter
from mindtune.checkpoint.tuned_model import has_processor, state_of
from mindtune.glue.adopting import refuse_training_again
from mindtune.glue.clock import refuse_future
from mindtune.errors import UserError
from mindtune.glue.graph import (
    left_undone,
    look_beside_the_results,
    look_past_ancient_inputs,
    needed_inputs,
)
from mindtune.glue.handover import (
    VARIABLE,
    changed_code,
    check_rules,
    hand_over,
    handed_over,
)
from mindtune.process import SNAKEMAKE
from snakemake.settings.types import DeploymentMethod
from mindtune.glue.sourcecode import (
    RECORDS,
    code_files,
    file_hash,
    hash_of,
    record,
    recorded,
)
from mindtune.glue.made import adopted_below
from mindtune.glue.run_lock import below, check_writable, enter
from mindtune.glue.settings_reading import (
    Sources,
    answerer,
    read_configuration,
    with_engine,
)
from mindtune.engines import stage_sources
from mindtune.engines.converting import OWN, converter_sources
from mindtune.engines.feature_cache import in_effect

RULES = {
    path.name: file_hash(path)
    for path in [
        ROOT / "Snakefile",
        *sorted(ROOT.glob("rules/*.smk")),
    ]
}

try:
    # A job of a cluster has the settings of the run that submitted it, whatever was edited since.
    HANDED = None if workflow.is_main_process else handed_over()
    if HANDED is None:
        CONFIG, ENGINE = read_configuration(
            config,
            files=workflow.configfiles,
            own_python=DeploymentMethod.CONDA
            not in workflow.deployment_settings.deployment_method,
        )
    else:
        check_rules(RULES, HANDED["rules"])
        CONFIG, ENGINE = with_engine(
            Configuration.of_plain(HANDED["common"], HANDED["experiments"])
        )
    SOURCES = Sources(
        CONFIG,
        table=ROOT / "config" / "data_sources.yaml",
        entries=HANDED and HANDED["table"],
    )
    if workflow.is_main_process and (SAID := enter(Path(".snakemake"))):
        print(SAID, file=sys.stderr)
except UserError as error:
    # A WorkflowError would add where in this file it was raised.
    print(error, file=sys.stderr)
    sys.exit(1)

os.environ[SNAKEMAKE] = str(os.getpid())  # jobs end with it

# For `--software-deployment-method conda`. Snakemake fills in wildcards, in the checkout's own path too.
ENVIRONMENT = str(ROOT / "envs" / "workflow.yaml")
ENVIRONMENT = ENVIRONMENT.replace("{", "{{").replace("}", "}}")

FAMILIES = SOURCES.families()
EXPERIMENTS = list(CONFIG.experiments)
CONTROLS = CONFIG.typed().compare.controls
# Experiment -> the directory of its model, where that was trained elsewhere.
ELSEWHERE = {
    name: Path(CONFIG.typed(name).tuned_model)
    for name in EXPERIMENTS
    if CONFIG.typed(name).tuned_model
}
TRAINED = [name for name in EXPERIMENTS if name not in ELSEWHERE]
LANGUAGE = CONFIG.typed().report.language
CODE = {}  # hash -> the files that it stands for
CODE_OF = {}  # script and stage of an engine -> the hash

ANSWERER = answerer(CONFIG)
# The sections of the machines that train and answer.
TRAINING_MACHINE = getattr(CONFIG.typed(), ENGINE.machine)
ANSWERING_MACHINE = getattr(CONFIG.typed(), ANSWERER.machine)
CONVERTER = getattr(TRAINING_MACHINE, "converter", OWN)

# Experiment -> the trackers of its training.
if HANDED is None:
    REPORT_TO = {
        name: CONFIG.typed(name).train.report_to
        for name in TRAINED
        if CONFIG.typed(name).train.report_to
    }
else:
    REPORT_TO = HANDED["report_to"]

# What jobs read and no result depends on. Snakemake compares params, not this.
config["operation"] = {
    "trainer": ENGINE.name,
    "engine": TRAINING_MACHINE.model_dump(),
    "answerer": ANSWERING_MACHINE.model_dump(),
    "download": CONFIG.common["sources"]["download"],
    "experiments": len(EXPERIMENTS),
    "trains": bool(TRAINED),
    "keep_checkpoints": CONFIG.typed().keep_checkpoints,
    "report_to": REPORT_TO,
    "changed_code": {},  # hash -> a sentence, in a job whose code is no longer what was submitted
}

if workflow.is_main_process:
    os.environ[VARIABLE] = ""  # set as it starts; another run's is not for these jobs


envvars:
    VARIABLE,


look_past_ancient_inputs()
if workflow.is_main_process:
    look_beside_the_results(lambda said: print(said, file=sys.stderr))


onstart:
    try:
        check_writable([*below(Path("results")), *below(Path("logs"), files=True)])
        refuse_future(needed_inputs(workflow))
        refuse_training_again(list(workflow.dag.needrun_jobs()))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    record(CODE, RECORDS)
    hand_over(
        {
            "common": CONFIG.common,
            "experiments": CONFIG.experiments,
            "report_to": REPORT_TO,
            "table": SOURCES.entries,
            "rules": RULES,
            "code": CODE_OF,
        }
    )


onsuccess:
    if LEFT := left_undone(workflow):
        print(LEFT, file=sys.stderr)
        sys.exit(1)


wildcard_constraints:
    experiment="|".join(map(re.escape, EXPERIMENTS)),
    scope="|".join(map(re.escape, [SHARED, *EXPERIMENTS])),
    # A control, see controls.smk, has stages of its own: `before_blind`.
    stage="(?:before|after)(?:_blind|_shuffled)?",


def settings(*sections):
    """Sections of the settings of the job's experiment, as an input or params function."""

    def of(wildcards):
        name = wildcards.get("scope") or wildcards.get("experiment") or SHARED
        found = CONFIG.settings(name)
        for section in sections:
            found = found[section]
        return found

    return of


def recorded_settings(wildcards):
    """All settings of the job's experiment but those that no number of a result depends on."""
    found = settings()(wildcards)
    return {name: section for name, section in found.items() if name != "report"}


def layout(wildcards):
    """How a checkpoint of the job's experiment is cut into shards."""
    parallel = settings("parallel")(wildcards)
    return {key: parallel[key] for key in LAYOUT}


def answering_layout(wildcards):
    """The layout, for an engine that answers from a checkpoint that is cut so."""
    return layout(wildcards) if ANSWERER.answers_from == "mm" else None


def converting_framework(wildcards):
    """The framework, where its own converter is wanted."""
    return FRAMEWORK if CONVERTER == "mm-convert" else []


def machine(section, keys):
    """What the result of an engine's role depends on, of the section of its machine."""
    plain = section.model_dump()
    return in_effect({key: plain[key] for key in keys if key in plain}, section)


def threads_of(machine):
    """Threads of one process; a machine with no such key chooses itself."""
    return getattr(machine, "threads", 1)


def training_threads(machine):
    """Threads of a training on one node, in all of its processes."""
    return threads_of(machine) * getattr(machine, "devices", 1)


def accelerators(machine):
    """Whether a job takes the accelerator of the machine it runs on, as 1 or 0."""
    return int(getattr(machine, "device", None) != "cpu")


# A machine's accelerator does one thing at a time, whatever `--cores` says. A cluster gives each of
# its jobs one, so that a limit would let them wait for one another; `--resources accelerator=2` wins.
if (
    (accelerators(TRAINING_MACHINE) or accelerators(ANSWERING_MACHINE))
    and workflow.global_resources["_nodes"].value is None
    and "accelerator" not in workflow.global_resources
):
    workflow.global_resources["accelerator"] = 1


def code(script, *chosen, data=()):
    """Hash of a script and of all that it imports, with the files that are chosen at run time."""
    files = code_files(SCRIPTS / f"{script}.py", *chosen, data=data, families=FAMILIES)
    name, found = script, hash_of(files)
    CODE[found] = files
    CODE_OF[name] = found
    if HANDED is not None and HANDED["code"].get(name) != found:
        then = recorded(HANDED["code"].get(name, ""), RECORDS) or {}
        config["operation"]["changed_code"][found] = changed_code(files, then)
    return found


def shared(stage, path):
    """A function for the path of a result that experiments may share, `{scope}` filled in."""

    def of(wildcards):
        name = wildcards.get("scope") or wildcards.get("experiment")
        return path.format(scope=CONFIG.scope(name, stage))

    return of


def scopes(wildcards):
    """Every scope that an experiment's results lie in: its own, and those it shares."""
    name = wildcards.experiment
    return sorted({name, *(CONFIG.scope(name, stage) for stage in STAGES)})


def adopted_results(wildcards):
    """What other code made of an experiment's results, see scripts/adopt.py."""
    return adopted_below(scopes(wildcards))


def source(name, demo, aged=False):
    """A source's path: the demo's, what was fetched, or the user's own.

    Age is no reason to run again: what was fetched has a checksum, and anything may touch a
    user's directory. It is one where `aged` says so, of a file of the user's.
    """

    def of(wildcards):
        scope = (
            (wildcards.get("scope") or wildcards.get("experiment"))
            if wildcards
            else SHARED
        )
        path = SOURCES.path(name, scope or SHARED)
        if path is None:
            return demo
        if aged and not SOURCES.is_fetched(name, scope or SHARED):
            return path
        return ancient(path)

    return of


def answering_model(wildcards):
    """The model of a stage, in the form from which the engine answers."""
    if ANSWERER.answers_from == "mm":
        if wildcards.stage.startswith("after"):
            return rules.finetune_model.output.done.format(experiment=wildcards.scope)
        return shared("mm", rules.prepare_checkpoint.output.mm)(wildcards)
    if wildcards.stage.startswith("before"):
        return base_model(wildcards)
    return tuned(wildcards)


def processor_model(wildcards):
    """The Hugging Face directory of a stage: as in the tutorial, the exported one after.

    Of a model that was trained elsewhere it is its own where it has all that is needed; of an adapter that
    is kept it is the base.
    """
    own = ELSEWHERE.get(wildcards.scope)
    lacking = own is not None and not is_adapter(own) and not has_processor(own)
    before = wildcards.stage.startswith("before")
    if before or lacking or keeps_adapter(wildcards.scope):
        return base_model(wildcards)
    return tuned(wildcards)


def tuned(wildcards):
    """The Hugging Face model of an experiment: trained here, merged here, or trained elsewhere; an adapter that
    is kept is what was trained here."""
    name = wildcards.get("scope") or wildcards.experiment
    own = ELSEWHERE.get(name)
    if own is None and (keeps_adapter(name) or not exports_adapter(name)):
        return rules.export_model.output.hf.format(experiment=name)
    if own is None or is_adapter(own):
        return rules.merge_adapter.output.merged.format(experiment=name)
    return ancient(str(own))


def state_of_tuned(wildcards):
    """The files of a model that was trained elsewhere: who trains it again wants other answers."""
    own = ELSEWHERE.get(wildcards.get("scope") or wildcards.experiment)
    if own is None or wildcards.get("stage", "").startswith("before"):
        return None
    return state_of(own)


def exports_adapter(name):
    """Whether an experiment's export is its adapter, and not the merged model."""
    adapted = name in TRAINED and CONFIG.typed(name).train.lora
    return bool(adapted) and CONFIG.typed().export == "adapter"


def keeps_adapter(name):
    """Whether an experiment's answers come from its adapter beside the base."""
    return ANSWERER.adapters and exports_adapter(name)


def adapter_of(wildcards):
    """The adapter of an experiment: trained here, or elsewhere."""
    name = wildcards.experiment
    if name in ELSEWHERE:
        return ancient(str(ELSEWHERE[name]))
    return rules.export_model.output.hf.format(experiment=name)


def where_trained(path):
    """A function for an input that an experiment has only if its model is trained here."""

    def of(wildcards):
        if wildcards.experiment in ELSEWHERE:
            return []
        return path(wildcards) if callable(path) else path

    return of


def control(wildcards):
    """The control that a stage belongs to, or nothing."""
    return wildcards.stage.partition("_")[2]


def asked_prompts(wildcards):
    """The prompts of a stage."""
    of = {
        "": rules.select_prompts.output.prompts,
        "blind": rules.blind_prompts.output.prompts,
        "shuffled": rules.shuffle_prompts.output.prompts,
    }
    return shared("prompts", of[control(wildcards)])(wildcards)


def shown_pictures(wildcards):
    """The pictures that the prompts of a stage are asked about."""
    if control(wildcards) == "blind":
        return shared("prompts", rules.blind_prompts.output.pictures)(wildcards)
    return images(wildcards)


def answers_of(experiment, stage):
    """The answers of a stage that count for an experiment."""
    before = stage.startswith("before")
    scope = CONFIG.scope(experiment, "before") if before else experiment
    return f"results/{scope}/answers_{stage}.jsonl"


def answers(stage):
    """A function for the answers of a stage that count for the job's experiment."""
    return lambda wildcards: answers_of(wildcards.experiment, stage)


def control_answers():
    """The answers of all controls as inputs that go with those of `before` and `after`."""
    return {
        f"{control}_{stage}": [
            answers_of(name, f"{stage}_{control}") for name in EXPERIMENTS
        ]
        for control in CONTROLS
        for stage in ("before", "after")
    }
