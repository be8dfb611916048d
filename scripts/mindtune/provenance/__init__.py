"""Where a result comes from, and in what two finished runs differ."""
