#!/usr/bin/env bash
# Everything that only a GPU can tell, in one go: checks, engines with their proofs, times, then training for the time
# that is left. Each step has a limit, its output and exit status land in one folder, and a failed one stops nothing.
#
#   benchmarks/gpu.sh [--dry-run] [--out DIR] [--seconds N] [--recipe RECIPE] [--data PHOTOS]
#
# --dry-run prints the steps and asks every command whether it has the options, on any machine and in no time.
set -u

dry=0 out=gpu-results seconds=540 recipe=nanosam-lite2 data=
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) dry=1; shift ;;
    --out | --seconds | --recipe | --data)
      [ $# -ge 2 ] || { echo "gpu.sh: $1 wants a value" >&2; exit 2; }
      case $1 in --out) out=$2 ;; --seconds) seconds=$2 ;; --recipe) recipe=$2 ;; --data) data=$2 ;; esac
      shift 2 ;;
    *) echo "gpu.sh: unknown option $1 (--dry-run, --out, --seconds, --recipe, --data)" >&2; exit 2 ;;
  esac
done
case $seconds in '' | *[!0-9]*) echo "gpu.sh: --seconds wants a number, not $seconds" >&2; exit 2 ;; esac
export NANOSAM_HOME="${NANOSAM_HOME:-$PWD/$out/home}"
begin=$SECONDS failed=0

left() { echo $((seconds - (SECONDS - begin))); }

# step NAME LIMIT COMMAND...: for LIMIT seconds, or what is left
step() {
  local name=$1 limit=$2 status
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$dry" = 1 ]; then
    echo "$name (at most $limit s): $*"
    check_options "$@" || failed=1
    return
  fi
  if [ "$limit" -le 5 ]; then
    echo "$name: no time left" | tee -a "$out/summary.txt"
    return
  fi
  local start=$SECONDS
  timeout --signal INT --kill-after 10 "$limit" "$@" > "$out/$name.txt" 2> "$out/$name.log"
  status=$?
  [ "$status" = 0 ] || failed=1
  echo "$name: exit $status, $((SECONDS - start)) s: $*" | tee -a "$out/summary.txt"
}

# Whether `nanosam COMMAND` knows every --option that a step gives it
check_options() {
  while [ $# -gt 0 ] && [ "$1" != nanosam ]; do shift; done
  [ $# -gt 0 ] || return 0
  shift
  local help word command=$1
  help=$(COLUMNS=200 NO_COLOR=1 TERM=dumb nanosam "$command" --help) || return 1
  for word in "$@"; do
    case $word in --*) grep -q -e "$word" <<< "$help" || { echo "  nanosam $command has no $word" >&2; return 1; } ;; esac
  done
}

[ "$dry" = 1 ] || mkdir -p "$out" || exit 1
step gpu 20 nvidia-smi
step doctor 60 nanosam doctor --json
step providers 30 python -c 'import onnxruntime; print(onnxruntime.__version__, onnxruntime.get_available_providers())'
step rtx-fp16 120 nanosam build-engine --fp16 --backend tensorrt-rtx --json
step rtx-times 60 nanosam benchmark --backend tensorrt-rtx --json
step tensorrt-fp16 120 nanosam build-engine --fp16 --backend tensorrt --json
step tensorrt-times 60 nanosam benchmark --backend tensorrt --json
step cuda-times 60 nanosam benchmark --backend onnxruntime --device cuda --json
step cpu-times 60 nanosam benchmark --backend onnxruntime --device cpu --repeats 5 --json
step nccl 60 torchrun --no-python --nproc-per-node 1 nanosam distill quick --set run.device=cuda --output "$out/nccl"
if [ -n "$data" ]; then
  step training "$(left)" nanosam distill "$recipe" --set data.root="$data" --set run.device=cuda --output "$out/training"
fi
exit "$failed"
