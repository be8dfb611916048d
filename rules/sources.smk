# The embedded demo's sources, for configurations that say `use: demo`.

DEMO_IMAGES = "results/sources/COCO2017/train2017"
DEMO_INSTRUCTIONS = "results/sources/llava_instruct_150k.json"
DEMO_MODEL = "results/sources/Qwen2-VL-demo"


rule draw_scenes:
    output:
        images=directory(DEMO_IMAGES),
        instructions=DEMO_INSTRUCTIONS,
    log:
        "logs/draw_scenes.log",
    benchmark:
        "results/benchmarks/draw_scenes/shared.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    params:
        # One parameter: Snakemake compares the values of all, whatever their names, so that
        # two numbers that change places would go unseen.
        demo=settings("sources", "demo"),
        code=code("draw_scenes"),
    message:
        "Drawing street scenes into {output.images}"
    script:
        "../scripts/draw_scenes.py"


rule build_base_model:
    output:
        model=directory(DEMO_MODEL),
    log:
        "logs/build_base_model.log",
    benchmark:
        "results/benchmarks/build_base_model/shared.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=code("build_base_model", data=(SCRIPTS / "mindtune/demo/base").glob("*")),
    message:
        "Laying out the demo's base model in {output.model}"
    script:
        "../scripts/build_base_model.py"


images = source("images", DEMO_IMAGES)
instructions = source("instructions", DEMO_INSTRUCTIONS, aged=True)
base_model = source("model", DEMO_MODEL)
