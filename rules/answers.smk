# Answers before fine-tuning are shared by all experiments with the same base, data and prompts.


rule answer_prompts:
    input:
        images=shown_pictures,
        prompts=asked_prompts,
        model=answering_model,
        hf=processor_model,
        framework=ANSWERING,
    output:
        answers="results/{scope}/answers_{stage}.jsonl",
    log:
        "logs/answer_prompts/{scope}_{stage}.log",
    benchmark:
        "results/benchmarks/answer_prompts/{scope}_{stage}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of(ANSWERING_MACHINE)
    resources:
        accelerator=accelerators(ANSWERING_MACHINE),
    params:
        engine=ANSWERER.name,
        answer=settings("answer"),
        processor=settings("processor"),
        parallel=answering_layout,
        machine=machine(ANSWERING_MACHINE, ANSWERER.keys["answer"]),
        tuned_model=state_of_tuned,
        code=code("answer_prompts", *stage_sources(ANSWERER.name, "answer")),
    message:
        "Answering prompts, {wildcards.stage}"
    script:
        "../scripts/answer_prompts.py"
