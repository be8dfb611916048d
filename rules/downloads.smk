# What the configuration wants fetched. The files are kept in sources.download.directory, which
# no rule has as an output: Snakemake deletes outputs before it makes them again, and nobody
# wants to fetch 19 GB twice. Outputs are links to them, made when the files are verified.
#
# Others take these outputs as `ancient`, and Snakemake looks at no param of a job that follows from
# one that runs, be it by an ancient input: an edit of `data` would go unseen beside one of
# `sources.download`. So these rules have no param but what they fetch, which changes with their
# outputs' names; how to fetch it comes by `config["operation"]`.


rule download_file:
    output:
        file="results/sources/files/{download}/{file}",
    log:
        "logs/download_file/{download}_{file}.log",
    wildcard_constraints:
        download="[^/]+",
        file="[^/]+",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        what=lambda wildcards: SOURCES.files[wildcards.download].parameters(),
    message:
        "Fetching {wildcards.file} into {params.what[directory]}"
    script:
        "../scripts/download_file.py"


rule download_model:
    output:
        model=directory("results/sources/models/{download}"),
    log:
        "logs/download_model/{download}.log",
    wildcard_constraints:
        download="[^/]+",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        what=lambda wildcards: SOURCES.models[wildcards.download].parameters(),
    message:
        "Fetching {wildcards.download} into {params.what[directory]}"
    script:
        "../scripts/download_model.py"


rule unpack_images:
    input:
        archive=lambda wildcards: ancient(SOURCES.pictures[wildcards.archive].source),
    output:
        images=directory("results/sources/pictures/{archive}/{stem}"),
    log:
        "logs/unpack_images/{archive}_{stem}.log",
    benchmark:
        "results/benchmarks/unpack_images/{archive}_{stem}.tsv"
    wildcard_constraints:
        archive="[^/]+",
        stem="[^/]+",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        target=lambda wildcards: SOURCES.pictures[wildcards.archive].target,
        pictures=lambda wildcards: SOURCES.pictures[wildcards.archive].pictures,
    message:
        "Unpacking {input.archive} into {params.target}"
    script:
        "../scripts/unpack_images.py"
