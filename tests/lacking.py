"""Tests that need something that is not everywhere."""

import os

import pytest

# Set where a test that can't run is a failure, and long proofs run too: in CI.
NOTHING_SKIPPED = "MINDTUNE_NOTHING_SKIPPED"


def lacking(message: str) -> None:
    """Skip, loudly; fail where these tests are required, as in CI."""
    if os.environ.get(NOTHING_SKIPPED):
        pytest.fail(message)
    pytest.skip(message)
