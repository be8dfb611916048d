#!/bin/sh
# Print `running`, `success` or `failed` for the name of a Kubernetes Job.
if ! found=$(kubectl get job "$1" --ignore-not-found \
  -o jsonpath='there {.status.succeeded}/{.status.failed}' 2>/dev/null); then
  # The cluster can't be asked now: it is asked again.
  echo running
  exit
fi
case $found in
  "there 1/"*) echo success ;;
  "there /") echo running ;;
  *) echo failed ;; # and where there is none, as somebody deleted it
esac
