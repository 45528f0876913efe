#!/bin/bash
# Distill on two machines of eight GPUs under Slurm: sbatch examples/cluster/slurm.sh
# The job saves and requeues itself before its time is over and when it is preempted, and continues where it was.
#SBATCH --job-name=kdkit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=kdkit-%j.log
# To this shell alone ('B:'), ten minutes before the end: it then ends the processes in order.
#SBATCH --signal=B:USR1@600

set -euo pipefail

# The project's folder: registry, images, features, checkpoints. All machines read and write it (NFS 4, Lustre, GPFS).
: "${PROJECT:=$SLURM_SUBMIT_DIR}"
# Compute nodes often reach no network: 'kdkit add-teacher' and 'kdkit features' ran on the login node.
export HF_HUB_OFFLINE=1 HF_HOME="${HF_HOME:-$PROJECT/.huggingface}"
# Python imports modules of the current folder first; a project may be another person's.
export PYTHONSAFEPATH=1

# 'srun' does not take this over from 'sbatch'.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
rendezvous=${machines[0]}:29500
stopped=""

stop() {
  stopped=yes
  echo "$(date) saving, then continuing in the next turn"
  # To the processes of the current step; torchrun passes SIGTERM on and waits for the checkpoint.
  scancel --signal=TERM "$SLURM_JOB_ID" || true
}
trap stop USR1 TERM

# Runs a command on every machine. In the background: bash handles a signal during 'wait' only, which ends it early.
on_all_machines() {
  srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "$SLURM_GPUS_ON_NODE" \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}-$1" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$rendezvous" \
    --shutdown-timeout 300 \
    -m kdkit "$@" &
  local running=$! code=0
  wait "$running" || code=$?
  while ((code > 128)) && kill -0 "$running" 2>/dev/null; do
    code=0
    wait "$running" || code=$?
  done
  return "$code"
}

code=0
on_all_machines features extract --project "$PROJECT" --device cuda || code=$?
if [[ -z $stopped && $code -eq 0 ]]; then
  on_all_machines distill --project "$PROJECT" --shard --replicas "$SLURM_JOB_NUM_NODES" \
    --precision bf16 --checkpoint-every 300 || code=$?
fi
if [[ $code -ne 0 ]]; then
  if [[ -n $stopped ]]; then
    scontrol requeue "$SLURM_JOB_ID"
  else
    # A preemption without a signal to this shell: Slurm requeues the job itself, unless it ends before.
    sleep "${GRACE_SECONDS:-120}"
  fi
fi
exit "$code"
