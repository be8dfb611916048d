# Fine-tuning. save_dir is a parameter and not an output: Snakemake would delete it before a
# re-run and after a failure, and with it the checkpoints to resume from.


rule finetune_model:
    input:
        images=images,
        train=shared("data", rules.convert_data.output.train),
        held_out=shared("data", rules.convert_data.output.held_out),
        hf=base_model,
        mm=shared("mm", rules.prepare_checkpoint.output.mm),
        framework=FRAMEWORK if ENGINE.framework else [],
    output:
        done="results/{experiment}/finetune.json",
        loss="results/{experiment}/loss.csv",
    log:
        "logs/finetune_model/{experiment}.log",
    benchmark:
        "results/benchmarks/finetune_model/{experiment}.tsv"
    conda:
        ENVIRONMENT
    threads: training_threads(TRAINING_MACHINE)
    resources:
        accelerator=accelerators(TRAINING_MACHINE),
    params:
        engine=ENGINE.name,
        save_dir="results/{experiment}/save_dir",
        train=settings("train"),
        processor=settings("processor"),
        parallel=settings("parallel"),
        machine=machine(TRAINING_MACHINE, ENGINE.keys["finetune"]),
        code=code("finetune_model", *stage_sources(ENGINE.name, "finetune")),
    message:
        "Fine-tuning experiment {wildcards.experiment}"
    script:
        "../scripts/finetune_model.py"
