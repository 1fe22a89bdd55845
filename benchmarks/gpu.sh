#!/usr/bin/env bash
# Everything that wants a CUDA card, in under ten minutes, as one report: results/gpu.md, or the file that is named.
# Run from a checkout with everything installed (`make test` does it): bash benchmarks/gpu.sh [REPORT.md]
# DEVICE=cpu rehearses it without a card: the same commands, with smaller batches where a processor is too slow.
set -uo pipefail

cd "$(dirname "$0")/.." || exit
report=${1:-results/gpu.md}
python=${PYTHON:-python}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}
device=${DEVICE:-cuda}
batch=32 pairs=10000
if [ "$device" = cpu ]; then
    batch=2 pairs=512
elif ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    echo "benchmarks/gpu.sh: no CUDA card is visible to torch here; run it on a machine with one (DEVICE=cpu rehearses)." >&2
    exit 1
fi

mkdir -p "$(dirname "$report")"
failed=0

# section TITLE SECONDS COMMAND…: run a command, with its output and exit code in the report.
section() {
    local title=$1 limit=$2
    shift 2
    { echo; echo "## $title"; echo; echo "    $*"; echo; echo '```'; } >> "$report"
    echo "$title …" >&2
    timeout "$limit" "$@" >> "$report" 2>&1
    local code=$?
    { echo '```'; echo; echo "exit code $code (124: stopped after $limit s)"; } >> "$report"
    [ "$code" -eq 0 ] || failed=1
}

{ echo "# On a graphics card (device $device)"; echo; date -u; } > "$report"
section "Machine" 30 "$python" -c 'from dits_adapter.evaluation._environment import environment as e; print(e())'
section "Tests" 120 "$python" -m pytest -q -p no:cacheprovider -m gpu tests/test_gpu.py
section "A joint step, float32" 60 "$python" -m benchmarks.joint_step --device "$device" --batch "$batch"
section "A joint step, bfloat16" 60 "$python" -m benchmarks.joint_step --device "$device" --batch "$batch" --bf16
section "A training step on vectors, bfloat16" 60 "$python" -m benchmarks.training_profile --device "$device" --precision bfloat16 \
    --pairs "$pairs"
section "Latency" 120 "$python" -m benchmarks.latency --device "$device" --seconds 4 --out results/gpu-latency
section "Throughput" 120 "$python" -m benchmarks.throughput --device "$device" --seconds 20 --out results/gpu-throughput

echo "written to $report" >&2
exit "$failed"
