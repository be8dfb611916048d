#!/bin/sh
# Delete Kubernetes Jobs, and with them their pods.
exec kubectl delete job --ignore-not-found --wait=false "$@"
