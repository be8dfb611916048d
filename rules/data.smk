# From LLaVA-Instruct to mllm-format data and prompts.

MIXTURE = CONFIG.typed().sources.mixture


rule convert_data:
    input:
        images=images,
        instructions=instructions,
        mixture=[part.path for part in MIXTURE],
    output:
        train="results/{scope}/data/train.json",
        held_out="results/{scope}/data/held_out.json",
        report="results/{scope}/data/conversion.json",
    log:
        "logs/convert_data/{scope}.log",
    benchmark:
        "results/benchmarks/convert_data/{scope}.tsv"
    conda:
        ENVIRONMENT
    params:
        data=settings("data"),
        weights=[part.weight for part in MIXTURE],
        code=code("convert_data"),
    message:
        "Converting {input.instructions} to mllm format"
    script:
        "../scripts/convert_data.py"


rule select_prompts:
    input:
        images=images,
        train=shared("data", rules.convert_data.output.train),
        held_out=shared("data", rules.convert_data.output.held_out),
    output:
        prompts="results/{scope}/prompts.jsonl",
    log:
        "logs/select_prompts/{scope}.log",
    benchmark:
        "results/benchmarks/select_prompts/{scope}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    params:
        prompts=settings("prompts"),
        code=code("select_prompts"),
    message:
        "Selecting prompts"
    script:
        "../scripts/select_prompts.py"


# Not on the way to results/compare.csv: `snakemake results/shared/data/check.html`.
rule check_data:
    input:
        images=images,
        train=shared("data", rules.convert_data.output.train),
        held_out=shared("data", rules.convert_data.output.held_out),
        report=shared("data", rules.convert_data.output.report),
        hf=base_model,
    output:
        page="results/{scope}/data/check.html",
        summary="results/{scope}/data/check.json",
    log:
        "logs/check_data/{scope}.log",
    benchmark:
        "results/benchmarks/check_data/{scope}.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    params:
        processor=settings("processor"),
        prompts=settings("prompts"),
        seq_length=settings("train", "seq_length"),
        code=code("check_data"),
    message:
        "Looking at all pictures and conversations"
    script:
        "../scripts/check_data.py"
