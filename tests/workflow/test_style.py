"""`snakemake --lint`: nothing to say."""


def test_lint_finds_nothing(finished):
    assert "Congratulations" in finished.snakemake("--lint")


def test_the_conda_environment_is_no_reason_to_run_again(finished):
    """The results were made before the rules had it, or without asking for it."""
    assert finished.planned() == {}
