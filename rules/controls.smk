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
    localrule: True
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
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=code("shuffle_prompts"),
    message:
        "Exchanging the pictures of the held-out questions"
    script:
        "../scripts/shuffle_prompts.py"
