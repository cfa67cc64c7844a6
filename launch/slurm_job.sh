#!/usr/bin/env bash
# The job of launch/slurm.sh: runs the command given as arguments once on each node, and requeues itself where it helps.
#
# From launch/slurm.sh: PRN_ROOT, PRN_VENV, PRN_MAX_RESTARTS, PRN_JOIN_TIMEOUT_SEC.

set -euo pipefail
if [[ -n "${PRN_VENV:-}" ]]; then export PATH=$PRN_VENV/bin:$PATH; fi
export PYTHONUNBUFFERED=1
restarts=${SLURM_RESTART_COUNT:-0}

# The tasks end each other, with a message; --kill-on-bad-exit would cut that short. --wait ends those that do not.
code=0
srun --kill-on-bad-exit=0 --wait=180 --label python3 "$PRN_ROOT/launch/supervise.py" -- "$@" || code=$?

case "$code" in
  0) echo "slurm_job: done" ;;
  75 | 76 | 137)
    if ((restarts < PRN_MAX_RESTARTS)); then
      echo "slurm_job: exit code $code, requeue $((restarts + 1)) of $PRN_MAX_RESTARTS"
      scontrol requeue "$SLURM_JOB_ID"
    else
      echo "slurm_job: exit code $code after $restarts restarts, giving up" >&2
    fi
    ;;
  *) echo "slurm_job: exit code $code, another start would not help; see the lines above" >&2 ;;
esac
exit "$code"
