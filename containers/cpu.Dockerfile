# The workflow's own environment for the `hf` engine on CPUs, and the executors of clusters.
#
#   docker build -f containers/cpu.Dockerfile -t mindtune-cpu .
#   docker run --rm -v "$PWD":/workflow --user "$(id -u)" mindtune-cpu \
#     snakemake --cores 1 results/compare.csv
#
# The workflow itself is not in the image: it is the directory that is mounted. Torch for CPUs
# alone makes the image gigabytes smaller; give PyTorch's index of them:
#   --build-arg PIP_EXTRA_INDEX_URL=…     (PyTorch's "Get started" page, Compute Platform: CPU)
FROM python:3.11-slim-bookworm
ARG PIP_EXTRA_INDEX_URL
COPY envs /envs
# Any user may run it; Snakemake and matplotlib want a home to write to.
RUN mkdir -m 1777 /home/mindtune \
    && pip install --no-cache-dir -r /envs/hf.txt -r /envs/cluster.txt
ENV HOME=/home/mindtune
USER 1000
WORKDIR /workflow
CMD ["snakemake", "--help"]
