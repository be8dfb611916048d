# The framework of an engine that has one of its own: installed or found, and looked at before
# anything heavy runs. Another installation makes again whatever was made with the one before. Its
# rules have no `code`: they check what is there, and a better check changes no result.

from mindtune.glue.doctor_settings import doctor_settings
from mindtune.engines.training_directory import content_of

FRAMEWORK = (
    "results/framework/machine.json" if ENGINE.framework or ANSWERER.framework else []
)
# What it is installed from, and held against: by content, as all code is.
PINS = sorted((ROOT / "envs" / "mindspeed").iterdir())

# vLLM, where that answers, is installed if no Python is named that has it. Another installation answers
# nothing again.
VLLM = CONFIG.common.get("vllm", {})
INSTALLS_VLLM = ANSWERER.name == "vllm" and ANSWERING_MACHINE.python is None
ANSWERING = FRAMEWORK if ANSWERER.framework else []
if INSTALLS_VLLM:
    ANSWERING = ancient("results/framework/vllm.json")

config["operation"]["vllm"] = CONFIG.typed().vllm.model_dump()  # whoever answers
config["operation"]["doctor"] = doctor_settings(CONFIG, SOURCES)


rule install_mindspeed_mm:
    output:
        installation="results/framework/installation.json",
    log:
        "logs/install_mindspeed_mm.log",
    priority: 100
    localrule: True
    conda:
        ENVIRONMENT
    params:
        home=CONFIG.common["mindspeed"]["home"],
        python=CONFIG.common["mindspeed"]["python"],
        set_env=CONFIG.common["mindspeed"]["set_env"],
        stand_in=CONFIG.common["mindspeed"]["stand_in"],
        install=CONFIG.common["mindspeed"]["install"],
        pins=content_of({path.name: path for path in PINS}),
    message:
        "Making sure of MindSpeed-MM"
    script:
        "../scripts/install_mindspeed_mm.py"


rule install_vllm:
    output:
        installation="results/framework/vllm.json",
    log:
        "logs/install_vllm.log",
    priority: 100
    localrule: True
    conda:
        ENVIRONMENT
    params:
        vllm={key: VLLM[key] for key in ("device", "install") if key in VLLM},
        vllm_pins=content_of(
            {path.name: path for path in sorted(ROOT.glob("envs/vllm-*.txt"))}
        ),
    message:
        "Making sure of vLLM"
    script:
        "../scripts/install_vllm.py"


rule doctor:
    input:
        installation=rules.install_mindspeed_mm.output.installation,
    output:
        machine="results/framework/machine.json",
    log:
        "logs/doctor.log",
    priority: 100  # before anything heavy
    conda:
        ENVIRONMENT
    resources:
        accelerator=1,
    message:
        "Looking at this machine"
    script:
        "../scripts/doctor.py"
