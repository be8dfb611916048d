# What the configuration wants fetched. The files are kept in sources.download.directory, which
# no rule has as an output: Snakemake deletes outputs before it makes them again, and nobody
# wants to fetch 19 GB twice. Outputs are links to them, made when the files are verified. Nothing
# is fetched for a framework that will not run: hence the input of that name.

DOWNLOAD = CONFIG.common["sources"]["download"]


rule download_file:
    input:
        framework=ancient(FRAMEWORK),
    output:
        file="results/sources/files/{download}/{file}",
    log:
        "logs/download_file/{download}_{file}.log",
    wildcard_constraints:
        download="[^/]+",
        file="[^/]+",
    params:
        what=lambda wildcards: SOURCES.files[wildcards.download].parameters(),
        line=DOWNLOAD,
        code=code("download_file"),
    message:
        "Fetching {wildcards.file} into {params.what[directory]}"
    script:
        "../scripts/download_file.py"


rule download_model:
    input:
        framework=ancient(FRAMEWORK),
    output:
        model=directory("results/sources/models/{download}"),
    log:
        "logs/download_model/{download}.log",
    wildcard_constraints:
        download="[^/]+",
    params:
        what=lambda wildcards: SOURCES.models[wildcards.download].parameters(),
        line=DOWNLOAD,
        code=code("download_model"),
    message:
        "Fetching {wildcards.download} into {params.what[directory]}"
    script:
        "../scripts/download_model.py"


rule unpack_images:
    input:
        archive=lambda wildcards: ancient(SOURCES.pictures[wildcards.archive].source),
        framework=ancient(FRAMEWORK),
    output:
        images=directory("results/sources/pictures/{archive}/{stem}"),
    log:
        "logs/unpack_images/{archive}_{stem}.log",
    benchmark:
        "results/benchmarks/unpack_images/{archive}_{stem}.tsv"
    wildcard_constraints:
        archive="[^/]+",
        stem="[^/]+",
    threads: 2
    params:
        target=lambda wildcards: SOURCES.pictures[wildcards.archive].target,
        pictures=lambda wildcards: SOURCES.pictures[wildcards.archive].pictures,
        code=code("unpack_images"),
    message:
        "Unpacking {input.archive} into {params.target}"
    script:
        "../scripts/unpack_images.py"
