#!/usr/bin/env bash
# DL3DV: from photos with cameras to a scene of 3D Gaussians, its scores on photos it has not seen, pictures, a film if
# ffmpeg is there, and a page in which one can move about. The plush doll of tests/data in minutes of two cores.
#
#   pipelines/nvs.sh
#   SCENE=1K/{hash} IMAGES=images_4 STEPS=30000 SH=3 pipelines/nvs.sh
#
# Every stage is a command of its own; kill it anywhere and start it again, and it goes on.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
scene=${SCENE:-$here/tests/data/plush}
images=${IMAGES:-images_16}
steps=${STEPS:-600}
sh=${SH:-1}                 # degree of the harmonics
cap=${CAP:-30000}           # Gaussians at most
seed=${SEED:-42}
frames=${FRAMES:-48}        # of the way through the scene
weights=${LPIPS_WEIGHTS:-}  # of AlexNet, for LPIPS
out=${OUT:-nvs-out}

scene=$(realpath "$scene")
if [ -n "$weights" ]; then weights=$(realpath "$weights"); fi
mkdir -p "$out"
cd "$out"

# once NAME COMMAND...: what a command writes, unless it is there already; a file that is there is whole
once() {
  local name=$1
  shift
  if [ ! -f "$name" ]; then
    "$@" > "$name.part"
    mv "$name.part" "$name"
  fi
}

once scene.jsonl nvs-prep "$scene" --images "$images"
nvs-train "$scene" --images "$images" --steps "$steps" --sh-degree "$sh" --cap "$cap" --seed "$seed" \
  --save-every 200 --out model >> training.jsonl
once scores.jsonl nvs-eval model ${weights:+--lpips-weights "$weights"}
once summary.jsonl nvs-eval model --summary ${weights:+--lpips-weights "$weights"}

film=()
if command -v ffmpeg > /dev/null; then film=(--video walk.mp4); fi
once walk.jsonl nvs-render model --part all --path interpolate --frames "$frames" --out walk "${film[@]}"
nvs-view model -o scene.html
cat summary.jsonl
