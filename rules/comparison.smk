# One table for all experiments.


rule compare_answers:
    input:
        **control_answers(),
        prompts=[
            f"results/{CONFIG.scope(name, 'prompts')}/prompts.jsonl"
            for name in EXPERIMENTS
        ],
        before=[
            f"results/{CONFIG.scope(name, 'before')}/answers_before.jsonl"
            for name in EXPERIMENTS
        ],
        after=[f"results/{name}/answers_after.jsonl" for name in EXPERIMENTS],
    output:
        compare=report(
            "results/compare.csv",
            caption="../report/compare.rst",
            category="Comparison",
            labels={"table": "all answers"},
        ),
        summary=report(
            "results/summary.csv",
            caption="../report/summary.rst",
            category="Comparison",
            labels={"table": "right answers by family"},
        ),
    log:
        "logs/compare_answers.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **({"elsewhere": list(ELSEWHERE)} if ELSEWHERE else {}),
        experiments=EXPERIMENTS,
        confidence=CONFIG.common["compare"]["confidence"],
        code=code("compare_answers"),
    message:
        "Comparing answers before and after"
    script:
        "../scripts/compare_answers.py"
