#!/usr/bin/env bash
# Install Slurm for the tests beside this script, where apt-get and root allow. It never fails: without Slurm they are
# skipped.
set -u

export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive
missing=''
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" > /dev/null || missing=$program
done
if [ -z "$missing" ]; then exit 0; fi

if ! command -v apt-get > /dev/null || [ "$(id -u)" != 0 ]; then
  echo "install.sh: no apt-get, or not root: the Slurm tests will be skipped" >&2
elif ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } > /dev/null 2>&1; then
  echo "install.sh: apt-get could not install Slurm: its tests will be skipped" >&2
fi
exit 0
