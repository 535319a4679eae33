#!/bin/sh
# sbatch driver.sh CONFIG: the driver as a job of its own; it submits the jobs of its workers.
#SBATCH --job-name=w2v
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@60
# It is told a minute before its time is over; finished work is kept, and the same command continues.
trap 'kill -TERM "$driver"; wait "$driver"; exit 143' TERM
w2v run "$@" &
driver=$!
wait "$driver"
