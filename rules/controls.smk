# The held-out questions with other pictures (compare.controls). The rule answer_prompts answers them
# too, as stages of their own: answers_before_blind.jsonl beside answers_before.jsonl.


rule blind_prompts:
    input:
        images=images,
        prompts=shared("prompts", rules.select_prompts.output.prompts),
    output:
        prompts="results/{scope}/prompts_blind.jsonl",
        pictures=directory("results/{scope}/grey"),
    log:
        "logs/blind_prompts/{scope}.log",
    conda:
        ENVIRONMENT
    params:
        code=code("blind_prompts"),
    message:
        "Painting grey pictures for the held-out questions"
    script:
        "../scripts/blind_prompts.py"


rule shuffle_prompts:
    input:
        images=images,
        prompts=shared("prompts", rules.select_prompts.output.prompts),
    output:
        prompts="results/{scope}/prompts_shuffled.jsonl",
    log:
        "logs/shuffle_prompts/{scope}.log",
    conda:
        ENVIRONMENT
    params:
        code=code("shuffle_prompts"),
    message:
        "Exchanging the pictures of the held-out questions"
    script:
        "../scripts/shuffle_prompts.py"


CONTROL_PROMPTS = {
    "": rules.select_prompts.output.prompts,
    "blind": rules.blind_prompts.output.prompts,
    "shuffled": rules.shuffle_prompts.output.prompts,
}


def control(wildcards):
    """The control that a stage belongs to, or nothing."""
    return wildcards.stage.partition("_")[2]


def asked_prompts(wildcards):
    """The prompts of a stage."""
    return shared("prompts", CONTROL_PROMPTS[control(wildcards)])(wildcards)


def shown_pictures(wildcards):
    """The pictures that the prompts of a stage are asked about."""
    if control(wildcards) == "blind":
        return shared("prompts", rules.blind_prompts.output.pictures)(wildcards)
    return images(wildcards)


def control_answers():
    """The answers of all controls as inputs that go with those of `before` and `after`."""
    return {
        f"{control}_{stage}": [
            f"results/{CONFIG.scope(name, 'before') if stage == 'before' else name}"
            f"/answers_{stage}_{control}.jsonl"
            for name in EXPERIMENTS
        ]
        for control in CONTROLS
        for stage in ("before", "after")
    }
