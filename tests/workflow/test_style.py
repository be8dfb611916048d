"""`snakemake --lint`: as clean as it can be."""


def test_lint_finds_nothing_but_missing_conda_environments(finished):
    """Rules share the one environment of envs/hf.txt; there is no conda on the way to it."""
    said = finished.snakemake("--lint", fails=True)
    found = {line.strip() for line in said.splitlines() if line.startswith("    * ")}
    assert found == {"* Specify a conda environment or container for each rule.:"}
