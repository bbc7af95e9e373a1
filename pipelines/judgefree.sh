#!/usr/bin/env bash
# Preference pairs without a judge: a model describes pictures, once looking and once half guessing; a contrastive encoder
# checks which of the two descriptions fits, and turns pairs round; the model learns from them by DPO, and its captions
# are compared with what the pictures show, before and after. With the embedded models, on a CPU.
#
#   pipelines/judgefree.sh
#   SCENES=2000 HELD_OUT=300 SIZE=320x240 TOKENS=256 LORA=128 RATE=1e-5 MODEL=llava-hf/llava-1.5-7b-hf \
#     CLIP=openai/clip-vit-large-patch14-336 PROMPT="Describe the objects in this image." pipelines/judgefree.sh
#
# The pictures are rendered, so that what is in them is known to the last object, and only the evaluation knows it: the
# pairs come from the model and the encoder alone. CHECK=keep takes the pairs as they are made, drop leaves out those that
# the encoder does not agree with, reverse (the method) turns them round. UNCOND=shuffle:train.jsonl H=1 makes the
# rejected descriptions about another picture.
#
# Every stage is a command of its own; kill it anywhere and start it again, and it goes on.
set -euo pipefail

scenes=${SCENES:-200}      # pictures that pairs are made about
held_out=${HELD_OUT:-100}  # pictures that captions are compared with
size=${SIZE:-128x96}       # of pictures
prompt=${PROMPT:-Describe the picture.}
tokens=${TOKENS:-100}      # longest description
h=${H:-normal:0.5,0.15}    # how much the rejected one is guessed
uncond=${UNCOND:-drop}     # what the guessing half sees
temperature=${TEMPERATURE:-1.0}
check=${CHECK:-reverse}
margin=${MARGIN:-0}        # pairs whose scores are no further apart are dropped
epochs=${EPOCHS:-2}
batch=${BATCH:-16}         # pairs of an update
beta=${BETA:-0.1}
lora=${LORA:-0}            # rank of the adapters that are trained; 0 trains all weights
rate=${RATE:-1e-5}         # learning rate
model=${MODEL:-sprite}
clip=${CLIP:-glance}
out=${OUT:-judgefree-out}

for folder in model clip; do
  if [ -d "${!folder}" ]; then printf -v "$folder" %s "$(realpath "${!folder}")"; fi
done
mkdir -p "$out"
cd "$out"  # paths of pictures are relative to here

# pictures NAME COUNT SEED: rendered scenes, and a row for each: the picture, what is asked, what there is to see
pictures() {
  if [ -f "$1.jsonl" ]; then return; fi
  pair-make scenes -n "$2" --seed "$3" --size "$size" --edit same --name "$1" --out images -o "$1.scenes.jsonl" --resume
  python3 - "$1.scenes.jsonl" "$prompt" > "$1.part" << 'PYTHON'
import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    row = json.loads(line)
    said = {"id": row["id"], "images": [row["original"]], "prompt": sys.argv[2], "scene": row["original_scene"]}
    print(json.dumps(said))
PYTHON
  mv "$1.part" "$1.jsonl"
}

# captions NAME MODEL...: descriptions of the held-out pictures, the likeliest ones, and what in them is true
captions() {
  local name=$1
  shift
  if [ -f "$name.jsonl" ]; then return; fi
  image-rollout held-out.jsonl "$@" --temperature 0 --response-tokens "$tokens" -o "$name.said.jsonl" --resume
  caption-eval "$name.said.jsonl" -o "$name.jsonl"
}

pictures train "$scenes" 0
pictures held-out "$held_out" 1
captions before --model "$model"

# made, scored, decided: the first two are dear, and are kept whatever is decided
if [ ! -f scored.jsonl ]; then
  judgefree-pairs --stage generate train.jsonl --model "$model" --h "$h" --uncond "$uncond" --temperature "$temperature" \
    --response-tokens "$tokens" -o made.jsonl --resume
  judgefree-pairs --stage score made.jsonl --clip "$clip" -o scored.jsonl --resume
fi
judgefree-pairs --stage decide scored.jsonl --on-negative "$check" --keep-margin "$margin" --reverse-margin "$margin" \
  --with-dropped -o decided.jsonl
grep -v '"action":"drop"' decided.jsonl > pairs.jsonl || true
if [ ! -s pairs.jsonl ]; then
  echo "judgefree.sh: no pair is left to train on; judgefree-stats $out/decided.jsonl tells why" >&2
  exit 1
fi

if [ ! -f steps.jsonl ]; then
  dpo-train pairs.jsonl --policy policy --model "$model" --lora "$lora" --lr "$rate" --beta "$beta" \
    --batch-rows "$batch" --epochs "$epochs" -o steps.jsonl --resume
fi
captions after --policy policy

for when in before after; do
  caption-eval -q --summary "$when.said.jsonl" | sed "s/^{/{\"when\":\"$when\",/"
done > report.jsonl

echo
judgefree-stats -q --table decided.jsonl
echo
python3 - << 'PYTHON'
"""What captions name, before and after: means over all mentions or objects."""
import json

shown = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "chair_i": "CHAIR_i",
    "chair_i_unique": "unique",
    "chair_s": "CHAIR_s",
}
print(f"{'captions':<10}" + "".join(f"{name:>11}" for name in [*shown.values(), "mentions"]))
for row in map(json.loads, open("report.jsonl", encoding="utf-8")):
    cells = ["-" if row[name] is None else f"{row[name]:.3f}" for name in shown]
    print(f"{row['when']:<10}" + "".join(f"{cell:>11}" for cell in [*cells, str(row["n_mentions"])]))
PYTHON
echo
echo "Files:"
for file in train.jsonl held-out.jsonl made.jsonl scored.jsonl decided.jsonl pairs.jsonl policy steps.jsonl \
  before.jsonl after.jsonl report.jsonl; do
  echo "  $out/$file"
done
