"""What several directories of tests need: one finished small run."""

import pytest
from workflow.conftest import Checkout


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A small run that is complete. Tests may dry-run in it, and restore what they change."""
    checkout = Checkout.make(tmp_path_factory.mktemp("finished"))
    checkout.snakemake("results/compare.csv")
    return checkout
