#!/usr/bin/env bash
# Trains on TPU slices of a GKE cluster that xpk made.
#
#   CLUSTER=my-cluster IMAGE=us-docker.pkg.dev/p/r/prn:tpu WORKDIR=/runs/a launch/xpk.sh [--dry-run] [-- ARGUMENTS]
#
# xpk starts a workload again after the exit codes 127 to 255; 75 (preempted) and 76 (a host was lost) are added here.
# WORKDIR must be on storage that xpk mounts into all pods ('xpk storage attach'). Settings (environment variables):

NAME=${NAME:-prn}                      # of the workload
CLUSTER=${CLUSTER:-}
ZONE=${ZONE:-}                         # empty: that of gcloud's configuration
PROJECT=${PROJECT:-}                   # empty: that of gcloud's configuration
IMAGE=${IMAGE:-}                       # built by launch/docker.sh with JAX='jax[tpu]'
CONFIG=${CONFIG:-imagenet_darknet53}
WORKDIR=${WORKDIR:-}                   # run directory, as the pods see it
TPU_TYPE=${TPU_TYPE:-v5litepod-16}
SLICES=${SLICES:-1}
MAX_RESTARTS=${MAX_RESTARTS:-20}
JOIN_TIMEOUT_SEC=${JOIN_TIMEOUT_SEC:-600}

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/common.sh
source "$ROOT/launch/common.sh"
parse_options create "$@"
[[ "$ACTION" == create ]] || fail "unexpected word $ACTION"
need CLUSTER "the cluster that xpk made"
need IMAGE "the container image"
need WORKDIR "the run directory, as the pods see it"
for number in SLICES MAX_RESTARTS JOIN_TIMEOUT_SEC; do need_number "$number"; done

command="PRN_JOIN_TIMEOUT_SEC=$JOIN_TIMEOUT_SEC python3 /opt/prn_jax/launch/supervise.py --"
command+=" $(quoted prn train --config="$CONFIG" --workdir="$WORKDIR" ${TRAIN_ARGS[@]+"${TRAIN_ARGS[@]}"})"
options=(
  --cluster="$CLUSTER" --workload="$NAME" --tpu-type="$TPU_TYPE" --num-slices="$SLICES" --docker-image="$IMAGE"
  --max-restarts="$MAX_RESTARTS" "--restart-on-exit-codes=75,76" --termination-grace-period-seconds=180
)
if [[ -n "$ZONE" ]]; then options+=(--zone="$ZONE"); fi
if [[ -n "$PROJECT" ]]; then options+=(--project="$PROJECT"); fi
run xpk workload create "${options[@]}" --command="$command"
