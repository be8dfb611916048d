# mindtune: fine-tune Qwen2-VL with MindSpeed-MM, and show what the fine-tuning did.
#
#   snakemake --cores 1 results/compare.csv
#
# install_mindspeed_mm, doctor        the framework, where the engine has one, and the machine
# install_vllm                        vLLM, where that answers and none is given
# draw_scenes, build_base_model       the demo's pictures, instructions and model
# download_file, download_model,       real pictures, instructions and models, where the
# unpack_images                        configuration wants them fetched
# convert_data, select_prompts        mllm-format data, held-out part, questions
# prepare_checkpoint                  Hugging Face model -> mm checkpoint
# finetune_model                      mm checkpoint + data -> save_dir
# export_model                        save_dir -> Hugging Face model
# merge_adapter                       peft adapter that was trained elsewhere -> Hugging Face model
# blind_prompts, shuffle_prompts       where compare.controls wants it, the held-out questions with
#                                     other pictures
# answer_prompts                      answers before and after
# compare_answers                     results/compare.csv, results/summary.csv
#
# and, from the same answers, what `snakemake --cores 1 all` makes beside:
#
# score_answers, summarize_scores     results/metrics.csv: every metric, with intervals
# plot_training, draw_samples         results/<experiment>/loss.svg, results/samples.png
# record_provenance                   results/<experiment>/provenance.json
# build_report                        results/report.html

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")

# Of this checkout: as a module of another workflow, `workflow.basedir` is that one's.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))

# The working directory's, or else the workflow's own: with `-s` it may run from anywhere.
DEFAULT = Path("config/config.yaml")
if not DEFAULT.exists() and (ROOT / DEFAULT).exists():
    DEFAULT = ROOT / DEFAULT

# A job of a cluster has its settings from the run that submitted it.
if not workflow.configfiles and workflow.is_main_process:
    # Before Snakemake reads it, which would run a template in it.
    sys.path.insert(0, str(ROOT / "scripts"))
    from mindtune.errors import UserError
    from mindtune.glue.settings_reading import guard_default

    try:
        guard_default(DEFAULT)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)

    configfile: DEFAULT


include: "rules/common.smk"
include: "rules/framework.smk"
include: "rules/sources.smk"
include: "rules/downloads.smk"
include: "rules/data.smk"
include: "rules/checkpoints.smk"
include: "rules/training.smk"
include: "rules/controls.smk"
include: "rules/answers.smk"
include: "rules/comparison.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        rules.compare_answers.output,
        rules.build_report.output,
        rules.draw_samples.output,
        expand(rules.plot_training.output, experiment=TRAINED),
    localrule: True
