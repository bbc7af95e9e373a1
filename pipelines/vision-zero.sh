#!/usr/bin/env bash
# Vision-Zero: a model that sees gets better by playing "who is the spy" with itself, and by questions whose answers can
# be checked. On a CPU, with the embedded image-text model, in about twenty minutes.
#
#   pipelines/vision-zero.sh
#   STEPS=100 PAIRS=128 SAMPLES=8 PROMPTS=full TOKENS=1024 SIZE=320x240 MODEL=Qwen/Qwen2.5-VL-7B-Instruct \
#     pipelines/vision-zero.sh
#
# In each step the model plays games about fresh pairs of pictures, all seats itself. What it learns from them depends on
# the stage. Clues: each is worth what the votes make of it, against the running mean of its role. Decisions: a vote is
# right or not; and so is an answer to a question about the pictures. spy-switch looks at the games and says which stage
# comes next. Before, between and after, the policy plays against the model it began as, on either side, about pictures
# that it never trains on, and answers questions about them.
#
# Every stage is a command of its own; kill it anywhere and start it again, and it goes on.
set -euo pipefail

steps=${STEPS:-12}           # updates of the policy, over all runs
pairs=${PAIRS:-12}           # pairs of pictures, and games, a step
civilians=${CIVILIANS:-3}
rounds=${ROUNDS:-1}          # of clues
questions=${QUESTIONS:-2}    # about each pair, in steps about decisions
samples=${SAMPLES:-6}        # answers to each question
spy_image=${SPY_IMAGE:-modified}
tokens=${TOKENS:-64}         # longest answer
size=${SIZE:-128x96}         # of pictures
prompts=${PROMPTS:-short}
temperature=${TEMPERATURE:-0.8}
rate=${RATE:-1e-4}           # learning rate
kl=${KL:-0.04}               # weight of the divergence from the model it began as
every=${EVERY:-4}            # steps between two examinations
held_out=${HELD_OUT:-50}     # pairs of pictures of an examination
rule=${RULE:---rho 0.5 --ema-debias --min-dwell 2 --patience 4}  # of spy-switch; the paper's is '' and for 100 steps
model=${MODEL:-sprite}
out=${OUT:-vision-zero-out}

if [ -d "$model" ]; then model=$(realpath "$model"); fi
mkdir -p "$out"
cd "$out"  # paths of pictures are relative to here
read -ra rule <<< "$rule"
table=(--civilians "$civilians" --rounds "$rounds" --spy-image "$spy_image" --voters civilians --wording "$prompts"
  --response-tokens "$tokens" --images . --on-error keep)

# once NAME COMMAND...: what a command writes, unless it is there already; a file that is there is whole
once() {
  local name=$1
  shift
  if [ ! -f "$name" ]; then
    "$@" > "$name.part"
    mv "$name.part" "$name"
  fi
}

# The value of a field of the only row of stdin.
field() {
  sed -n "s/.*\"$1\":\"\\{0,1\\}\\([^,\"}]*\\).*/\\1/p"
}

# Questions about the pictures of a file, answered by the policy, and whether the answers are right.
asked() {
  local file=$1
  shift
  pair-quiz "$file" -n "$questions" | image-rollout --policy policy --images . --response-tokens 16 "$@" |
    answer-check --kind exact
}

# The policy against the model it began as: as the spy, as the civilians, alone with questions.
examine() {
  local here=exam/$1
  mkdir -p "$here"
  once "$here/stage" echo "$2"
  spy_game=(spy-game --policy policy "${table[@]}" --temperature "$temperature" held-out.jsonl)
  once "$here/as-spy.jsonl" "${spy_game[@]}" --civ-model "$model"
  once "$here/as-civilians.jsonl" "${spy_game[@]}" --spy-model "$model"
  once "$here/answers.jsonl" asked held-out.jsonl --temperature 0
}

played() {
  spy-game --policy policy "${table[@]}" --temperature "$temperature" "$1/pairs.jsonl"
}

# What a step about clues learns from, and what one about decisions does.
clue_rows() {
  spy-reward --turns --stage clue --advantages --state roles.json "$1/games.jsonl"
}
decision_rows() {
  spy-reward --turns --stage decision --advantages "$1/games.jsonl"
  asked "$1/pairs.jsonl" --samples "$samples" --temperature "$temperature" |
    group-advantage --reward-field correct --group-size "$samples" --std population
}

learned() {
  policy-train --policy policy --images . --batch-rows 1000000 --temperature "$temperature" --lr "$rate" \
    --kl-coef "$kl" --reference "$model" --on-error skip "$1/rows.jsonl"
}

switched() {
  spy-stats "$1/games.jsonl" | sed "s/^{/{\"step\":$2,/" | spy-switch --state switch.json "${rule[@]}"
}

pairs_of_step() {
  sed -n "$((($1 - 1) * pairs + 1)),$(($1 * pairs))p" train.jsonl
}

count=$((steps * pairs))
if [ ! -f train.jsonl ] || [ "$(wc -l < train.jsonl)" -lt "$count" ]; then
  pair-make scenes -n "$count" --size "$size" --name train --out images -o train.jsonl
fi
if [ ! -f held-out.jsonl ]; then
  pair-make scenes -n "$held_out" --size "$size" --name held-out --seed 1 --out images -o held-out.jsonl
fi
if [ ! -e policy/current ]; then
  policy-train --policy policy --model "$model" < /dev/null  # version 0
fi
if [ ! -f switch.json ]; then
  spy-switch --state switch.json "${rule[@]}" < /dev/null
fi

examine 0 start
for step in $(seq "$steps"); do
  here=steps/$step
  if [ -f "$here/switch.jsonl" ]; then continue; fi
  mkdir -p "$here"
  once "$here/stage" field stage < <(spy-switch --state switch.json "${rule[@]}" --current < /dev/null)
  stage=$(cat "$here/stage")
  once "$here/pairs.jsonl" pairs_of_step "$step"
  once "$here/games.jsonl" played "$here"
  once "$here/rows.jsonl" "${stage}_rows" "$here"
  once "$here/train.jsonl" learned "$here"
  if ((step % every == 0 || step == steps)); then examine "$step" "$stage"; fi
  once "$here/switch.jsonl" switched "$here" "$step"
done

# A row for each examination, a table of them, and a picture.
python3 - "$(basename "$model")" << 'PYTHON'
import json
import os
import subprocess
import sys
from pathlib import Path


def sums(path):
    """What spy-stats says of games."""
    return json.loads(subprocess.run(["spy-stats", "-q", path], capture_output=True, check=True).stdout)


rows = []
for exam in sorted(Path("exam").iterdir(), key=lambda path: int(path.name)):
    spy, civilians = sums(exam / "as-spy.jsonl"), sums(exam / "as-civilians.jsonl")
    answers = [json.loads(line) for line in open(exam / "answers.jsonl")]
    right = [answer["correct"] for answer in answers if answer.get("correct") is not None]
    stages = [Path("steps", str(step), "stage").read_text().strip() for step in range(1, int(exam.name) + 1)]
    rows.append({
        "model": sys.argv[1],
        "step": int(exam.name),
        "stages": "".join(stage[0] for stage in stages),
        "n_games": spy["n_games"],
        "spy_win_rate": spy["spy_win_rate"],
        "civilian_win_rate": civilians["civilian_win_rate"],
        "n_votes": civilians["n_votes"],
        "vote_accuracy": civilians["vote_accuracy"],
        "na_share": civilians["na_share"],
        "n_answers": len(right),
        "question_accuracy": sum(right) / len(right) if right else None,
    })
Path("report.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

SHOWN = {
    "spy_win_rate": ("wins as the spy", "n_games"),
    "civilian_win_rate": ("wins as civilians", "n_games"),
    "vote_accuracy": ("right votes", "n_votes"),
    "na_share": ("N/A", "n_votes"),
    "question_accuracy": ("right answers", "n_answers"),
}
lines = [f"| step | stages so far | {' | '.join(name for name, _ in SHOWN.values())} |", "|---" * (len(SHOWN) + 2) + "|"]
for row in rows:
    cells = ["-" if row[name] is None else f"{row[name]:.3f} of {row[of]}" for name, (_, of) in SHOWN.items()]
    lines.append(f"| {row['step']} | {row['stages'] or '-'} | {' | '.join(cells)} |")
text = "\n".join(lines) + "\n\nStages: c is a step about clues, d one about decisions. Shares, and what they are of.\n"
Path("report.md").write_text(text)
print(f"\n{text}")

try:
    from matplotlib.figure import Figure
except ImportError:
    sys.exit(print("(no picture: it needs matplotlib)"))
figure = Figure(figsize=(8, 4.2), layout="constrained")
axes = figure.subplots()
stages = rows[-1]["stages"]
for number, stage in enumerate(stages):
    if stage == "c":
        axes.axvspan(number, number + 1, color="0.9", linewidth=0, label="_clues")
for name, (label, _) in SHOWN.items():
    points = [(row["step"], row[name]) for row in rows if row[name] is not None]
    if points:
        axes.plot(*zip(*points), marker="o", label=label, clip_on=False)
axes.xaxis.get_major_locator().set_params(integer=True)
axes.set(xlim=(0, max(1, len(stages))), ylim=(0, 1), xlabel="updates (grey: about clues, white: about decisions)")
axes.spines[["top", "right"]].set_visible(False)
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
figure.savefig("report.svg", metadata={"Date": None})
PYTHON

echo "Files:"
for file in train.jsonl held-out.jsonl policy steps exam report.jsonl report.md report.svg; do
  echo "  $out/$file"
done
echo "To see the games of a step:  spy-replay $out/steps/$steps/games.jsonl --images $out > games.html"
