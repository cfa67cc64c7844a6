# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables set here are for the recipes
# Sourced by the recipes: what they share about options, settings, and doing or only printing.

DRY_RUN=${DRY_RUN:-0}

# Ends with the message and exit code 2.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

# need NAME WHAT: the variable NAME must be set.
need() {
  [[ -n "${!1:-}" ]] || fail "$1 is not set: $2. The top of the script lists all settings."
}

# need_number NAME: the variable NAME must be a whole number above 0.
need_number() {
  [[ "${!1}" =~ ^[1-9][0-9]*$ ]] || fail "$1=${!1}: expected a whole number above 0"
}

# A command line as one could type it.
quoted() {
  local word out="" quote="'\\''"
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=@,%+-]+$ ]]; then out+="$word "; else out+="'${word//\'/$quote}' "; fi
  done
  printf '%s\n' "${out% }"
}

# Runs a command, or prints it under --dry-run.
run() {
  if [[ "$DRY_RUN" == 1 ]]; then quoted "$@"; else "$@"; fi
}

# The same, three times if need be: ssh to many machines fails now and then.
run_with_retry() {
  local try
  for try in 1 2 3; do
    run "$@" && return
    printf '%s: try %s of 3 failed: %s\n' "$(basename "$0")" "$try" "$1" >&2
    sleep "${RETRY_SEC:-10}"
  done
  return 1
}

# Sets ACTION (first word, $1 of this function is its default), DRY_RUN, and TRAIN_ARGS (what follows --).
parse_options() {
  ACTION=$1
  TRAIN_ARGS=()
  shift
  local seen=0
  while (($#)); do
    case "$1" in
      --dry-run) DRY_RUN=1 ;;
      -h | --help) sed -n '2,/^set -euo/{/^set -euo/!{s/^# \{0,1\}//;p;};}' "$0" && exit 0 ;;
      --) shift && TRAIN_ARGS=("$@") && return ;;
      -*) fail "unknown option $1; arguments of 'prn train' follow --" ;;
      *)
        ((seen == 0)) || fail "unexpected word $1"
        ACTION=$1 seen=1
        ;;
    esac
    shift
  done
}
