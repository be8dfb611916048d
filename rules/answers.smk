# Answers before fine-tuning are shared by all experiments with the same base, data and prompts.


rule answer_prompts:
    input:
        images=images,
        prompts=shared("prompts", rules.select_prompts.output.prompts),
        model=answering_model,
        hf=processor_model,
        framework=FRAMEWORK,
    output:
        answers="results/{scope}/answers_{stage}.jsonl",
    log:
        "logs/answer_prompts/{scope}_{stage}.log",
    benchmark:
        "results/benchmarks/answer_prompts/{scope}_{stage}.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.common[ENGINE.machine].get("threads", 1)
    params:
        engine=ENGINE.name,
        answer=settings("answer"),
        processor=settings("processor"),
        parallel=answering_layout,
        machine=machine("answer"),
        tuned_model=state_of_tuned,
        code=code("answer_prompts", "answer"),
    message:
        "Answering prompts {wildcards.stage} fine-tuning"
    script:
        "../scripts/answer_prompts.py"
