#!/usr/bin/env bash
# Trains on a Slurm cluster: one task on each node, which uses all GPUs of the node.
#
#   NODES=4 GPUS_PER_NODE=8 WORKDIR=/shared/runs/a launch/slurm.sh [--dry-run] [-- ARGUMENTS OF prn train]
#
# Submits launch/slurm_job.sh. Slurm sends SIGTERM two minutes before the time limit; training saves and ends with 75,
# and the job puts itself back into the queue; the same after a lost host (76), MAX_RESTARTS times.
# Settings (environment variables):

CONFIG=${CONFIG:-imagenet_darknet53}   # configuration
WORKDIR=${WORKDIR:-}                   # run directory on a file system that all nodes share
NODES=${NODES:-2}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}      # 0: train on CPUs
CPUS_PER_NODE=${CPUS_PER_NODE:-32}     # for decoding and augmentation
TIME=${TIME:-24:00:00}
PARTITION=${PARTITION:-}               # empty: the cluster's default
ACCOUNT=${ACCOUNT:-}                   # empty: the cluster's default
VENV=${VENV:-}                         # virtual environment with prn_jax and jax[cuda12]; empty: what is in PATH
MAX_RESTARTS=${MAX_RESTARTS:-20}
JOIN_TIMEOUT_SEC=${JOIN_TIMEOUT_SEC:-180}

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/common.sh
source "$ROOT/launch/common.sh"
parse_options submit "$@"
[[ "$ACTION" == submit ]] || fail "unexpected word $ACTION"
need WORKDIR "a directory that all nodes share"
need_number NODES
need_number CPUS_PER_NODE
need_number MAX_RESTARTS
[[ "$GPUS_PER_NODE" =~ ^[0-9]+$ ]] || fail "GPUS_PER_NODE=$GPUS_PER_NODE: expected a whole number"

options=(
  --job-name="prn-$(basename "$WORKDIR")"
  --nodes="$NODES" --ntasks-per-node=1 --cpus-per-task="$CPUS_PER_NODE" --exclusive --time="$TIME"
  --signal=TERM@120 --requeue --open-mode=append --output="$WORKDIR.slurm-%j.log"
)
if ((GPUS_PER_NODE)); then options+=(--gpus-per-node="$GPUS_PER_NODE"); fi
if [[ -n "$PARTITION" ]]; then options+=(--partition="$PARTITION"); fi
if [[ -n "$ACCOUNT" ]]; then options+=(--account="$ACCOUNT"); fi
run env PRN_ROOT="$ROOT" PRN_VENV="$VENV" PRN_MAX_RESTARTS="$MAX_RESTARTS" PRN_JOIN_TIMEOUT_SEC="$JOIN_TIMEOUT_SEC" \
  sbatch "${options[@]}" "$ROOT/launch/slurm_job.sh" \
  prn train --config="$CONFIG" --workdir="$WORKDIR" ${TRAIN_ARGS[@]+"${TRAIN_ARGS[@]}"}
