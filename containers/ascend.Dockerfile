# The workflow on an Ascend 910B: CANN with the framework's Python 3.10, and beside it, apart from
# it, a Python 3.11 for Snakemake. Neither sees the other's packages: the engine `mindspeed` starts
# python3.10, the rules run in /opt/mindtune.
#
#   docker build -f containers/ascend.Dockerfile -t mindtune-ascend .
#   docker run --rm -v "$PWD":/workflow \
#     --device /dev/davinci0 --device /dev/davinci_manager --device /dev/devmm_svm \
#     --device /dev/hisi_hdc -v /usr/local/Ascend/driver:/usr/local/Ascend/driver:ro \
#     -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro \
#     mindtune-ascend snakemake --profile profiles/ascend results/compare.csv \
#     --configfile config/qwen2-vl-2b.yaml
#
# MindSpeed-MM is installed by the rule install_mindspeed_mm, into the mounted directory, at the
# first run. Where GitHub is out of reach: --build-arg UV_PYTHON_INSTALL_MIRROR=…
FROM ascend/cann:8.1.rc1-910b-ubuntu22.04-py3.10
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG PIP_EXTRA_INDEX_URL
ARG UV_PYTHON_INSTALL_MIRROR
ENV UV_PYTHON_INSTALL_DIR=/opt/python UV_NO_CACHE=1
# What apex is built with. Ubuntu keeps no old versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential cmake git patchelf \
    && rm -rf /var/lib/apt/lists/*
COPY envs /envs
# uv is in an environment of its own, so that the framework's Python stays as it came.
# Only `snakemake` is put on the path: `python3` and `python3.10` stay the image's.
RUN python3.10 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir uv==0.13.9 \
    && /opt/uv/bin/uv venv --python 3.11 --seed /opt/mindtune \
    && /opt/mindtune/bin/pip install --no-cache-dir -r /envs/hf.txt -r /envs/cluster.txt \
    && ln -s /opt/mindtune/bin/snakemake /usr/local/bin/snakemake \
    && mkdir -m 1777 /home/mindtune
ENV HOME=/home/mindtune
WORKDIR /workflow
CMD ["snakemake", "--help"]
