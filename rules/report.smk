# What can be read off finished answers. compare.csv needs none of it, and none of it loads a model.

ANSWERS = dict(
    prompts=shared("prompts", rules.select_prompts.output.prompts),
    before=answers("before"),
    after=answers("after"),
)


rule score_answers:
    input:
        **ANSWERS,
    output:
        scores="results/{experiment}/scores.csv",
    log:
        "logs/score_answers/{experiment}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=code("score_answers"),
    message:
        "Scoring the answers of experiment {wildcards.experiment}"
    script:
        "../scripts/score_answers.py"


rule summarize_scores:
    input:
        compare=rules.compare_answers.output.compare,
        scores=expand(rules.score_answers.output.scores, experiment=EXPERIMENTS),
    output:
        metrics=report(
            "results/metrics.csv",
            caption="../report/metrics.rst",
            category="Comparison",
            labels={"table": "every metric"},
        ),
    log:
        "logs/summarize_scores.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **CONFIG.common["compare"],
        code=code("summarize_scores"),
    message:
        "Summing up all metrics"
    script:
        "../scripts/summarize_scores.py"


rule plot_training:
    input:
        loss=rules.finetune_model.output.loss,
    output:
        plot=report(
            "results/{experiment}/loss.svg",
            caption="../report/loss.rst",
            category="Training",
            labels={"experiment": "{experiment}"},
        ),
    log:
        "logs/plot_training/{experiment}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        language=LANGUAGE,
        code=code("plot_training"),
    message:
        "Drawing the curves of experiment {wildcards.experiment}"
    script:
        "../scripts/plot_training.py"


rule record_provenance:
    input:
        **ANSWERS,
        **{
            f"{stage}_{control}": answers(f"{stage}_{control}")
            for control in CONTROLS
            for stage in ("before", "after")
        },
        images=images,
        instructions=instructions,
        base=base_model,
        mm=where_trained(shared("mm", rules.prepare_checkpoint.output.mm)),
        tuned=tuned,
        finetune=where_trained(rules.finetune_model.output.done),
        framework=FRAMEWORK,
    output:
        provenance=report(
            "results/{experiment}/provenance.json",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"experiment": "{experiment}"},
        ),
    log:
        "logs/record_provenance/{experiment}.log",
    conda:
        ENVIRONMENT
    params:
        config=recorded_settings,
        scopes=scopes,
        adopted=adopted_results,
        benchmarks="results/benchmarks",
        code=code("record_provenance"),
    message:
        "Recording what experiment {wildcards.experiment} was made of"
    script:
        "../scripts/record_provenance.py"


rule draw_samples:
    input:
        images=images,
        compare=rules.compare_answers.output.compare,
    output:
        sheet=report(
            "results/samples.png",
            caption="../report/samples.rst",
            category="Comparison",
            labels={"table": "some answers, with pictures"},
        ),
    log:
        "logs/draw_samples.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        experiment=EXPERIMENTS[0],
        language=LANGUAGE,
        code=code("draw_samples"),
    message:
        "Drawing some pictures with their answers"
    script:
        "../scripts/draw_samples.py"


rule build_report:
    input:
        images=images,
        compare=rules.compare_answers.output.compare,
        summary=rules.compare_answers.output.summary,
        metrics=rules.summarize_scores.output.metrics,
        scores=expand(rules.score_answers.output.scores, experiment=EXPERIMENTS),
        loss=expand(rules.finetune_model.output.loss, experiment=TRAINED),
        provenance=expand(
            rules.record_provenance.output.provenance, experiment=EXPERIMENTS
        ),
        conversion=[
            rules.convert_data.output.report.format(scope=CONFIG.scope(name, "data"))
            for name in EXPERIMENTS
        ],
    output:
        page=report(
            "results/report.html",
            caption="../report/page.rst",
            category="Comparison",
            labels={"table": "the whole page"},
        ),
    log:
        "logs/build_report.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **CONFIG.common["compare"],
        experiments=EXPERIMENTS,
        language=LANGUAGE,
        code=code(
            "build_report",
            data=(SCRIPTS / "mindtune/report/templates").glob("*"),
        ),
    message:
        "Building the report"
    script:
        "../scripts/build_report.py"
