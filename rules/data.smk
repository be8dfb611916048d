# From LLaVA-Instruct to mllm-format data and prompts.


rule convert_data:
    input:
        images=images,
        instructions=instructions,
    output:
        train="results/{scope}/data/train.json",
        held_out="results/{scope}/data/held_out.json",
        report="results/{scope}/data/conversion.json",
    log:
        "logs/convert_data/{scope}.log",
    benchmark:
        "results/benchmarks/convert_data/{scope}.tsv"
    params:
        data=settings("data"),
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
    params:
        prompts=settings("prompts"),
        code=code("select_prompts"),
    message:
        "Selecting prompts"
    script:
        "../scripts/select_prompts.py"
