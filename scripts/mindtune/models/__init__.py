"""One room per model family: all that says what a family is."""
