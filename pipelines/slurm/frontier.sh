#!/bin/bash
# Trains a recipe on Frontier and machines like it under Slurm: nodes of four MI250X, whose eight
# dies (GCDs) are eight GPUs to Slurm and PyTorch, so eight ranks a node.
#
#   sciml-dchag submit RECIPE --template frontier --gpus 16 --account PROJECT --dry-run
#
# `submit` sets what follows `=` in the lines that it knows, and drops the second `#` of those that
# are switched off (`##SBATCH`). Everything else is yours: copy this file, fit it to your site, and
# name the copy with `--template`. By hand it works as well: set the values and call `sbatch`.
#
# Site settings are those of OLCF's guide, docs.olcf.ornl.gov, "PyTorch on Frontier".

#SBATCH --job-name=sciml-dchag
##SBATCH --account=PROJECT
#SBATCH --partition=batch
#SBATCH --time=01:00:00
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
# One task a node: torchrun, which starts the ranks. Of a node's 64 cores, 8 are the system's; each
# rank gets 7 of the others. `submit` keeps that share.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=56
# The printed lines of a job that was requeued follow those from before.
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
# Slurm may start the job again when a node fails or another job takes its place, and tells this
# script (B:) five minutes before the time is up.
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
# Nothing of the shell that submits, modules above all, reaches the job ...
#SBATCH --export=NONE

set -eo pipefail
# ... but what is set from here on reaches srun.
unset SLURM_EXPORT_ENV

# Where sciml-dchag is installed (a venv or conda environment, on disks that all nodes see; fastest
# on NVMe, by sbcast, then on Orion, slowest in the home folder); what `sciml-dchag train` is told,
# with paths from the folder that `sbatch` is called in; ranks a node.
environment=.venv
arguments=(pipelines/demo_weather.yaml --runs runs)
ranks_per_node=8

# `torchrun`, or `srun`: OLCF's guide asks to avoid torchrun, which was seen to start programs very
# slowly on Frontier. With `srun` each rank is a task of Slurm, on the GCD closest to its cores.
launcher=torchrun

# The ROCm that your torch was built for: give the versions.
module load PrgEnv-gnu amd-mixed craype-accel-amd-gfx90a
export PATH="$environment/bin:$PATH"
# A rank's share of the cores.
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / ranks_per_node))

# MIOpen keeps compiled kernels in a database, which on a disk that nodes share ends in I/O errors.
export MIOPEN_USER_DB_PATH="/tmp/miopen-$SLURM_JOB_ID"
export MIOPEN_CUSTOM_CACHE_DIR="$MIOPEN_USER_DB_PATH"
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 mkdir -p "$MIOPEN_USER_DB_PATH"

# RCCL, which reads NCCL's variables, and gloo, which writes checkpoints, over Slingshot.
export NCCL_SOCKET_IFNAME=hsn0
export GLOO_SOCKET_IFNAME=hsn0
# Can be faster on many nodes.
export NCCL_CROSS_NIC=1
# Can be faster; take it out when a job hangs or crashes.
export NCCL_NET_GDR_LEVEL=3
# Without this plug-in RCCL does not use libfabric; the guide says how to build it.
plugin="$HOME/aws-ofi-rccl/lib"
if [ -d "$plugin" ]; then
    export LD_LIBRARY_PATH="$plugin:${LD_LIBRARY_PATH:-}"
else
    echo "There is no $plugin: RCCL works without its plug-in for libfabric, slowly over nodes."
fi

# When the time is nearly up, the ranks are told, which keep a checkpoint after their step and end;
# then back into the queue. Not for ever, though: a job that never gets on would come back without
# end.
most_restarts=20
signalled=no
stop_training() {
    signalled=yes
    echo "The time is nearly up: training keeps a checkpoint and ends."
    scancel --signal=USR1 "$SLURM_JOB_ID.1" || true
}
trap stop_training USR1

# The ranks meet on the first node, at a port of this job's own.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR="${nodes[0]}"
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))

# In the background, as bash runs a trap only once what it waits for in the foreground has ended.
# torchrun, which would end at the signal, is started with it ignored; the ranks take it.
if [ "$launcher" = torchrun ]; then
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
        --cpus-per-task="$SLURM_CPUS_PER_TASK" --gpus-per-node="$ranks_per_node" \
        --kill-on-bad-exit=1 \
        bash -c 'trap "" USR1; exec torchrun "$@"' torchrun \
        --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$ranks_per_node" \
        --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:$MASTER_PORT" \
        --rdzv-id "$SLURM_JOB_ID" \
        -m sciml_dchag train "${arguments[@]}" &
else
    # What torchrun would tell a rank. A task sees one GCD, its own, which is number 0 to it.
    # shellcheck disable=SC2016
    srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node="$ranks_per_node" \
        --cpus-per-task="$OMP_NUM_THREADS" --gpus-per-task=1 --gpu-bind=closest \
        --kill-on-bad-exit=1 \
        bash -c 'export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=0
            exec python -m sciml_dchag train "$@"' rank "${arguments[@]}" &
fi
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
