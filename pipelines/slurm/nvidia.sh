#!/bin/bash
# Trains a recipe on NVIDIA nodes under Slurm: one torchrun a node, one rank a GPU.
#
#   sciml-dchag submit RECIPE --gpus 8 --account PROJECT --dry-run     prints this, filled in
#
# `submit` sets what follows `=` in the lines that it knows, and drops the second `#` of those that
# are switched off (`##SBATCH`). Everything else is yours: copy this file, fit it to your site, and
# name the copy with `--template`. By hand it works as well: set the values and call `sbatch`.

#SBATCH --job-name=sciml-dchag
##SBATCH --account=PROJECT
##SBATCH --partition=PARTITION
#SBATCH --time=01:00:00
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
# One task a node: torchrun, which starts the ranks. The cores are for all of them, here 8 a GPU;
# `submit` keeps that share.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
# The printed lines of a job that was requeued follow those from before.
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
# Slurm may start the job again when a node fails or another job takes its place, and tells this
# script (B:) five minutes before the time is up.
#SBATCH --requeue
#SBATCH --signal=B:USR1@300

set -eo pipefail

# Where sciml-dchag is installed (a venv or conda environment, on disks that all nodes see); what
# `sciml-dchag train` is told, with paths from the folder that `sbatch` is called in; ranks a node.
environment=.venv
arguments=(pipelines/demo_weather.yaml --runs runs)
ranks_per_node=4

export PATH="$environment/bin:$PATH"
# A rank's share of the cores.
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / ranks_per_node))
# NCCL finds NVLink and InfiniBand by itself. Where it starts on the wrong network, name yours:
#export NCCL_SOCKET_IFNAME=ib0
#export NCCL_DEBUG=INFO

# When the time is nearly up, the ranks are told, which keep a checkpoint after their step and end;
# then back into the queue. Not for ever, though: a job that never gets on would come back without
# end.
most_restarts=20
signalled=no
stop_training() {
    signalled=yes
    echo "The time is nearly up: training keeps a checkpoint and ends."
    scancel --signal=USR1 "$SLURM_JOB_ID.0" || true
}
trap stop_training USR1

# The ranks meet on the first node, at a port of this job's own.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
meeting_point="${nodes[0]}:$((20000 + SLURM_JOB_ID % 10000))"

# In the background, as bash runs a trap only once what it waits for in the foreground has ended.
# torchrun, which would end at the signal, is started with it ignored; the ranks take it.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    --kill-on-bad-exit=1 \
    bash -c 'trap "" USR1; exec torchrun "$@"' torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$ranks_per_node" \
    --rdzv-backend c10d --rdzv-endpoint "$meeting_point" --rdzv-id "$SLURM_JOB_ID" \
    -m sciml_dchag train "${arguments[@]}" &
training=$!
status=0
wait "$training" || status=$?
if [ "$signalled" = yes ]; then # the signal ended `wait`, not the training
    status=0
    wait "$training" || status=$?
    if ((status != 0 && ${SLURM_RESTART_COUNT:-0} < most_restarts)); then
        echo "Requeueing."
        scontrol requeue "$SLURM_JOB_ID"
    fi
fi
exit "$status"
