#!/usr/bin/env bash
# Everything that wants a CUDA card, in under ten minutes, as one report: results/gpu.md, or the file that is named.
# Run from a checkout with everything installed (`make test` does it): bash benchmarks/gpu.sh [REPORT.md]
set -uo pipefail

cd "$(dirname "$0")/.."
report=${1:-results/gpu.md}
python=${PYTHON:-python}
[ -x .venv/bin/python ] && python=${PYTHON:-.venv/bin/python}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
    echo "benchmarks/gpu.sh: no CUDA card is visible to torch here; run it on a machine with one." >&2
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

{ echo "# On a graphics card"; echo; date -u; } > "$report"
section "Machine" 30 "$python" -c 'from dits_adapter.evaluation._environment import environment as e; print(e())'
section "Tests" 120 "$python" -m pytest -q -p no:cacheprovider -m gpu tests/test_gpu.py
section "A joint step, float32" 60 "$python" -m benchmarks.joint_step --device cuda
section "A joint step, bfloat16" 60 "$python" -m benchmarks.joint_step --device cuda --bf16
section "A training step on vectors, bfloat16" 60 "$python" -m benchmarks.training_profile --device cuda --precision bfloat16
section "Latency" 120 "$python" -m benchmarks.latency --device cuda --seconds 4 --out results/gpu-latency
section "Throughput" 120 "$python" -m benchmarks.throughput --device cuda --seconds 20 --out results/gpu-throughput

echo "written to $report" >&2
exit "$failed"
