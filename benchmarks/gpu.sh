#!/usr/bin/env bash
# Tests and measurements on one GPU of NVIDIA's, in under 8 minutes, without a network: the kernels,
# runs from training to scores, and benchmarks/gpu.py. Needs torch 2.11 or newer and this package's
# other packages; PYTHON names the interpreter. The result is kept under benchmarks/results/gpu, or
# in the folder given, by card and date. Ranks share the one card where gloo can join them.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=${1:-benchmarks/results/gpu}
export PYTHONPATH=$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
card=$("$python" -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "-").lower())')
result=$folder/$card-$(date +%F)
mkdir -p "$folder"

# Warnings of packages that the image brings are no errors here.
tests=("$python" -m pytest -q -n 6 --dist loadscope -p no:cacheprovider -p no:benchmark
  -W "default" --durations=5)
"${tests[@]}" tests/unit/test_absorbed_gpu.py tests/unit/test_training.py \
  tests/unit/test_float16.py tests/unit/test_stability.py \
  tests/unit/test_forecast_task.py tests/unit/test_masked.py tests/unit/test_control_runs.py \
  tests/unit/test_interpolate_task.py tests/unit/test_detect_task.py tests/unit/test_api.py \
  tests/cli/test_run.py tests/cli/test_run_plants.py | tee "$result-tests.txt"
SCIML_DCHAG_TEST_DEVICE=cuda "$python" -m pytest -q -p no:cacheprovider -p no:benchmark -W "default" \
  "tests/distributed/test_parity.py::test_a_mesh_computes_what_one_process_computes[{'dp': 2}]" \
  | tee -a "$result-tests.txt"
"$python" benchmarks/gpu.py --json "$result.json"
