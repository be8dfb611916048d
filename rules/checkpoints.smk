# Between Hugging Face's layout and MindSpeed-MM's, there and back.


rule prepare_checkpoint:
    input:
        hf=base_model,
        framework=converting_framework,
    output:
        mm=directory("results/{scope}/mm"),
    log:
        "logs/prepare_checkpoint/{scope}.log",
    benchmark:
        "results/benchmarks/prepare_checkpoint/{scope}.tsv"
    conda:
        ENVIRONMENT
    params:
        converter=CONVERTER,
        parallel=layout,
        code=code("prepare_checkpoint", *converter_sources(CONVERTER)),
    message:
        "Converting {input.hf} to the mm checkpoint {output.mm}"
    script:
        "../scripts/prepare_checkpoint.py"


rule export_model:
    input:
        done="results/{experiment}/finetune.json",
        hf=base_model,
        framework=converting_framework,
    output:
        hf=directory("results/{experiment}/hf"),
    log:
        "logs/export_model/{experiment}.log",
    benchmark:
        "results/benchmarks/export_model/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        converter=CONVERTER,
        parallel=layout,
        adapter=lambda wildcards: exports_adapter(wildcards.experiment),
        code=code("export_model", *converter_sources(CONVERTER)),
    message:
        "Exporting the fine-tuned model to {output.hf}"
    script:
        "../scripts/export_model.py"


rule merge_adapter:
    input:
        base=base_model,
        adapter=adapter_of,
    output:
        merged=directory("results/{experiment}/merged"),
    log:
        "logs/merge_adapter/{experiment}.log",
    benchmark:
        "results/benchmarks/merge_adapter/{experiment}.tsv"
    conda:
        ENVIRONMENT
    params:
        tuned_model=state_of_tuned,
        code=code("merge_adapter"),
    message:
        "Merging the adapter of {wildcards.experiment} into {input.base}"
    script:
        "../scripts/merge_adapter.py"
