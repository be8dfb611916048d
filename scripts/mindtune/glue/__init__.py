"""All that knows Snakemake: running a script, run lock, plan, clock, content hashes, reading settings."""
