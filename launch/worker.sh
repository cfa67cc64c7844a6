#!/usr/bin/env bash
# Runs a command on this machine so that it outlives the ssh session that started it; tpu_vm.sh calls it on each worker.
#
#   launch/worker.sh start NAME MAX_RESTARTS COMMAND...    returns at once; output goes to ~/logs/NAME.log
#   launch/worker.sh status NAME                           runs, ended (with its exit code), or unknown; end of the log
#   launch/worker.sh stop NAME                             SIGTERM: training saves, then ends

set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LOGS=${LOGS:-$HOME/logs}
WHAT=${1:-} NAME=${2:-}
if [[ -z "$WHAT" || -z "$NAME" ]]; then
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
mkdir -p "$LOGS"
BASE=$LOGS/$NAME

runs() { [[ -e "$BASE.pid" ]] && kill -0 "$(cat "$BASE.pid")" 2> /dev/null; }

case "$WHAT" in
  start)
    if runs; then
      echo "$(hostname): $NAME already runs here (pid $(cat "$BASE.pid")): stop it first" >&2
      exit 2
    fi
    rm -f "$BASE.exit" "$BASE.pid"
    setsid nohup "$0" _run "$NAME" "${@:3}" >> "$BASE.log" 2>&1 < /dev/null &
    for _ in $(seq 100); do
      if [[ -e "$BASE.pid" ]]; then break; fi
      sleep 0.1
    done
    echo "$(hostname): $NAME started, log in $BASE.log"
    ;;
  _run)
    python3 "$HERE/supervise.py" --max-restarts "$3" -- "${@:4}" &
    echo $! > "$BASE.pid"
    code=0
    wait $! || code=$?
    echo "$code" > "$BASE.exit"
    ;;
  status)
    if runs; then
      echo "$(hostname): $NAME runs (pid $(cat "$BASE.pid"))"
    elif [[ -e "$BASE.exit" ]]; then
      echo "$(hostname): $NAME ended with exit code $(cat "$BASE.exit")"
    else
      echo "$(hostname): $NAME is not known here, or was killed"
    fi
    if [[ -e "$BASE.log" ]]; then tail -n 3 "$BASE.log"; fi
    ;;
  stop)
    if runs; then
      kill -TERM "$(cat "$BASE.pid")"
      echo "$(hostname): asked $NAME to save and end"
    else
      echo "$(hostname): $NAME does not run here"
    fi
    ;;
  *)
    echo "worker.sh: unknown action $WHAT: start, status or stop" >&2
    exit 2
    ;;
esac
