#!/usr/bin/env bash
# Trains on a Cloud TPU VM or pod slice, with nothing but ssh.
#
#   TPU_NAME=my-pod ZONE=us-west4-a BUCKET=my-bucket launch/tpu_vm.sh setup
#   TPU_NAME=my-pod ZONE=us-west4-a BUCKET=my-bucket launch/tpu_vm.sh train [--dry-run] [-- ARGUMENTS OF prn train]
#   ... launch/tpu_vm.sh logs | status | stop
#
# setup copies the committed code to all workers, installs it and mounts the bucket; train starts the same command on
# all workers and returns; a lost host makes all of them start again from the last checkpoint, MAX_RESTARTS times; stop
# sends SIGTERM, which saves and ends. Settings (environment variables):

TPU_NAME=${TPU_NAME:-}                 # name of the TPU VM
ZONE=${ZONE:-}                         # its zone
PROJECT=${PROJECT:-}                   # its project; empty: that of gcloud's configuration
BUCKET=${BUCKET:-}                     # bucket for the run directories (without gs://), one with a hierarchical namespace
CONFIG=${CONFIG:-imagenet_darknet53}   # configuration
RUN_NAME=${RUN_NAME:-$CONFIG}          # run directory in the bucket
MAX_RESTARTS=${MAX_RESTARTS:-20}       # starts after a lost host
JOIN_TIMEOUT_SEC=${JOIN_TIMEOUT_SEC:-300}

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/common.sh
source "$ROOT/launch/common.sh"

on_all_workers() {
  run_with_retry gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${WHERE[@]}" --worker=all --command="$1"
}

setup() {
  need BUCKET "the bucket for the run directories"
  local code=${TMPDIR:-/tmp}/prn_jax.tar.gz
  run git -C "$ROOT" archive --format=tar.gz --output="$code" HEAD
  run_with_retry gcloud compute tpus tpu-vm scp "$code" "$TPU_NAME:prn_jax.tar.gz" "${WHERE[@]}" --worker=all
  on_all_workers "set -eu
mkdir -p ~/prn_jax ~/runs ~/logs
tar xzf ~/prn_jax.tar.gz -C ~/prn_jax
python3 -m pip install --quiet --user uv
~/.local/bin/uv venv --quiet --allow-existing --python 3.12 ~/prn_jax/.venv
~/.local/bin/uv pip install --quiet --python ~/prn_jax/.venv -e ~/prn_jax'[gcs]' 'jax[tpu]>=0.7.2,<0.13'
if ! command -v gcsfuse; then
  curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc > /dev/null
  echo \"deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main\" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list
  sudo apt-get update -q && sudo apt-get install -qy gcsfuse
fi
mountpoint -q ~/runs || gcsfuse --implicit-dirs $(quoted "$BUCKET") ~/runs"
}

train() {
  need BUCKET "the bucket for the run directories"
  need_number MAX_RESTARTS
  local command environ=(env "PRN_JOIN_TIMEOUT_SEC=$JOIN_TIMEOUT_SEC" PYTHONUNBUFFERED=1)
  command="$(quoted "${environ[@]}" prn train "--config=$CONFIG") --workdir=\$HOME/runs/$RUN_NAME"
  if ((${#TRAIN_ARGS[@]})); then command+=" $(quoted "${TRAIN_ARGS[@]}")"; fi
  on_all_workers "cd ~/prn_jax && PATH=\$PWD/.venv/bin:\$PATH launch/worker.sh start $RUN_NAME $MAX_RESTARTS $command"
}

parse_options help "$@"
if [[ "$ACTION" == help ]]; then fail "what to do? One of setup, train, logs, status, stop (--help)"; fi
need TPU_NAME "the name of the TPU VM"
need ZONE "the zone of the TPU VM"
WHERE=("--zone=$ZONE")
if [[ -n "$PROJECT" ]]; then WHERE+=("--project=$PROJECT"); fi
[[ "$RUN_NAME" =~ ^[A-Za-z0-9_.-]+$ ]] || fail "RUN_NAME=$RUN_NAME: letters, digits, '_', '-' and '.' only"

case "$ACTION" in
  setup) setup ;;
  train) train ;;
  logs) run gcloud compute tpus tpu-vm ssh "$TPU_NAME" "${WHERE[@]}" --worker=0 --command="tail -n 50 -F ~/logs/$RUN_NAME.log" ;;
  status | stop) on_all_workers "\$HOME/prn_jax/launch/worker.sh $ACTION $RUN_NAME" ;;
  *) fail "unknown action $ACTION: setup, train, logs, status or stop" ;;
esac
