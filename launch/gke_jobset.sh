#!/usr/bin/env bash
# Trains on a TPU slice (or several) of a GKE cluster, as a JobSet.
#
#   IMAGE=us-docker.pkg.dev/p/r/prn:tpu BUCKET=my-bucket TPU_TOPOLOGY=4x4 launch/gke_jobset.sh [--dry-run] [-- ARGUMENTS]
#
# Fills launch/jobset.yaml and applies it. Exit codes 1, 2, 3 and 78 end the run; everything else, a lost host or node among
# them, makes the JobSet start all pods again, MAX_RESTARTS times. The cluster needs JobSet and the Cloud Storage FUSE
# driver, the service account access to the bucket. Settings (environment variables):

NAME=${NAME:-prn}                                       # of the JobSet, at most 40 letters, digits and '-'
NAMESPACE=${NAMESPACE:-default}
IMAGE=${IMAGE:-}                                        # built by launch/docker.sh with JAX='jax[tpu]'
BUCKET=${BUCKET:-}                                      # bucket for the run directories, with a hierarchical namespace
CONFIG=${CONFIG:-imagenet_darknet53}
TPU_ACCELERATOR=${TPU_ACCELERATOR:-tpu-v5-lite-podslice} # label cloud.google.com/gke-tpu-accelerator of the nodes
TPU_TOPOLOGY=${TPU_TOPOLOGY:-4x4}                       # chips of a slice
CHIPS_PER_HOST=${CHIPS_PER_HOST:-4}
SLICES=${SLICES:-1}
SERVICE_ACCOUNT=${SERVICE_ACCOUNT:-default}
RUN_AS_USER=${RUN_AS_USER:-1000}                        # 0 if the nodes give TPU devices to root alone
MAX_RESTARTS=${MAX_RESTARTS:-20}
JOIN_TIMEOUT_SEC=${JOIN_TIMEOUT_SEC:-600}               # nodes pull the image at different speeds

set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=launch/common.sh
source "$ROOT/launch/common.sh"
parse_options apply "$@"
[[ "$ACTION" == apply ]] || fail "unexpected word $ACTION"
need IMAGE "the container image"
need BUCKET "the bucket for the run directories"
for number in CHIPS_PER_HOST SLICES MAX_RESTARTS JOIN_TIMEOUT_SEC; do need_number "$number"; done
[[ "$RUN_AS_USER" =~ ^[0-9]+$ ]] || fail "RUN_AS_USER=$RUN_AS_USER: expected the number of a user"
[[ "$NAME" =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] || fail "NAME=$NAME: lower-case letters, digits and '-', at most 40"
[[ "$TPU_TOPOLOGY" =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "TPU_TOPOLOGY=$TPU_TOPOLOGY: expected chips like 4x4 or 2x2x4"
chips=$((${TPU_TOPOLOGY//x/ * }))
((chips % CHIPS_PER_HOST == 0)) || fail "TPU_TOPOLOGY=$TPU_TOPOLOGY has $chips chips, not a multiple of CHIPS_PER_HOST=$CHIPS_PER_HOST"
# shellcheck disable=SC2034  # read by name below
HOSTS=$((chips / CHIPS_PER_HOST))

# Each argument as a JSON string, which is YAML too.
ARGS=""
for word in "--config=$CONFIG" "--workdir=/runs/$NAME" ${TRAIN_ARGS[@]+"${TRAIN_ARGS[@]}"}; do
  word=${word//\\/\\\\}
  ARGS+=", \"${word//\"/\\\"}\""
done

manifest=$(grep -v '^#' "$ROOT/launch/jobset.yaml")
for name in NAME NAMESPACE IMAGE BUCKET TPU_ACCELERATOR TPU_TOPOLOGY CHIPS_PER_HOST SLICES SERVICE_ACCOUNT RUN_AS_USER \
  MAX_RESTARTS JOIN_TIMEOUT_SEC HOSTS ARGS; do
  manifest=${manifest//"\${$name}"/"${!name}"}
done

if [[ "$DRY_RUN" == 1 ]]; then
  printf "kubectl apply -f - <<'END'\n%s\nEND\n" "$manifest"
else
  kubectl apply -f - <<< "$manifest"
  echo "Logs of the first host: kubectl -n $NAMESPACE logs -f -l jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0"
fi
