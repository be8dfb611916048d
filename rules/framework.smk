# The framework of an engine that has one of its own: installed or found, and looked at before
# anything heavy runs. What these rules tell is for others ancient: a framework in another place,
# or another free port, is no reason to train again.

FRAMEWORK = "results/framework/machine.json" if ENGINE.framework else []


rule install_mindspeed_mm:
    output:
        installation="results/framework/installation.json",
    log:
        "logs/install_mindspeed_mm.log",
    params:
        home=CONFIG.common["mindspeed"]["home"],
        python=CONFIG.common["mindspeed"]["python"],
        set_env=CONFIG.common["mindspeed"]["set_env"],
        stand_in=CONFIG.common["mindspeed"]["stand_in"],
        install=CONFIG.common["mindspeed"]["install"],
        code=code("install_mindspeed_mm"),
    message:
        "Making sure of MindSpeed-MM"
    script:
        "../scripts/install_mindspeed_mm.py"


rule doctor:
    input:
        installation=rules.install_mindspeed_mm.output.installation,
    output:
        machine=FRAMEWORK or "results/framework/machine.json",
    log:
        "logs/doctor.log",
    params:
        settings=CONFIG.common["mindspeed"],
        code=code("doctor"),
    message:
        "Looking at this machine"
    script:
        "../scripts/doctor.py"
