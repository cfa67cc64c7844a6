#!/usr/bin/env bash
# Builds the image, pushes it, or trains in it on this machine.
#
#   JAX='jax[tpu]' IMAGE=us-docker.pkg.dev/p/r/prn:tpu launch/docker.sh build|push [--dry-run]
#   JAX='jax[cuda12]' IMAGE=prn:cuda RUNS=$PWD/runs DATA=/data launch/docker.sh train [--dry-run] [-- ARGUMENTS]
#
# Settings (environment variables):

IMAGE=${IMAGE:-prn:cpu}
JAX=${JAX:-jax}                        # jax, jax[tpu] or jax[cuda12]
PYTHON=${PYTHON:-3.12}
CONFIG=${CONFIG:-demo}
RUNS=${RUNS:-$PWD/runs}                # directory of this machine for the run directories, /runs in the container
DATA=${DATA:-}                         # directory of this machine with data, /data in the container (read-only)
GPUS=${GPUS:-}                         # 'all' or numbers; empty: none
MAX_RESTARTS=${MAX_RESTARTS:-0}

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/common.sh
source "$ROOT/launch/common.sh"
parse_options build "$@"
[[ "$JAX" =~ ^jax(\[[a-z0-9,-]+\])?$ ]] || fail "JAX=$JAX: expected jax, jax[tpu] or jax[cuda12]"

train() {
  # The user of this machine, so that the files of the run are theirs.
  local options=(--rm --init --user "$(id -u):$(id -g)" --env HOME=/tmp --volume "$RUNS:/runs" --shm-size 8g)
  if [[ -n "$DATA" ]]; then options+=(--volume "$DATA:/data:ro"); fi
  if [[ -n "$GPUS" ]]; then options+=(--gpus "$GPUS"); fi
  run mkdir -p "$RUNS"
  run docker run "${options[@]}" --stop-timeout 180 --entrypoint python3 "$IMAGE" \
    /opt/prn_jax/launch/supervise.py --max-restarts "$MAX_RESTARTS" -- \
    prn train --config="$CONFIG" --workdir="/runs/$CONFIG" ${TRAIN_ARGS[@]+"${TRAIN_ARGS[@]}"}
}

case "$ACTION" in
  build)
    run env DOCKER_BUILDKIT=1 docker build --file "$ROOT/launch/Dockerfile" --build-arg "JAX=$JAX" \
      --build-arg "PYTHON=$PYTHON" --tag "$IMAGE" "$ROOT"
    ;;
  push) run docker push "$IMAGE" ;;
  train) train ;;
  *) fail "unknown action $ACTION: build, push or train" ;;
esac
