#!/bin/sh
# Print `running`, `success` or `failed` for the number of a Slurm job.
#
# scontrol knows finished jobs for MinJobAge seconds (300 by default), which has to outlast
# seconds-between-status-checks; sacct is asked after that, where there is accounting.
state=$(scontrol -o show job "$1" 2>/dev/null | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')
[ -n "$state" ] ||
  state=$(sacct -n -X -P -j "$1" -o State 2>/dev/null | sed -n '1s/ .*//;1p')
case $state in
  COMPLETED) echo success ;;
  PENDING | CONFIGURING | RUNNING | SUSPENDED | STOPPED | SIGNALING | STAGE_OUT | RESIZING | \
    COMPLETING | REQUEUED | REQUEUE_HOLD | REQUEUE_FED | SPECIAL_EXIT | PREEMPTED) echo running ;;
  "")
    # Slurm may be away for a moment. Only an answer that it does not know the job is a failure.
    if scontrol ping >/dev/null 2>&1; then echo failed; else echo running; fi
    ;;
  *) echo failed ;;
esac
