#!/usr/bin/env bash
# DUMP: a curriculum that learns, while a policy does, which puzzles still teach it something. On a CPU, in minutes.
#
#   pipelines/dump.sh
#   STEPS=200 TASKS=32 SAMPLES=8 LORA=0 RATE=1e-6 MODEL=Qwen/Qwen2.5-3B-Instruct OUT=run1 pipelines/dump.sh
#
# Five resident processes in a ring of pipes: ucb-sample draws puzzles, text-rollout answers them with the newest policy,
# kk-reward and group-advantage judge the answers, policy-train learns from them and tells ucb-sample through a named
# pipe what it learned from what, and asks for more. Kill it anywhere and start it again, and it goes on; rollouts that
# were under way are lost, nothing else.
set -euo pipefail

steps=${STEPS:-8}      # updates of the policy, over all runs
tasks=${TASKS:-4}      # puzzles an update
samples=${SAMPLES:-4}  # answers a puzzle
tokens=${TOKENS:-48}   # longest answer
temperature=${TEMPERATURE:-0.7}
lora=${LORA:-16}       # rank of the adapters that are trained; 0 trains all weights
rate=${RATE:-2e-4}     # learning rate
model=${MODEL:-embedded}
out=${OUT:-dump-out}

mkdir -p "$out"
last=$(printf 'v%06d' "$steps")
adapters=(--lora "$lora")
if [ "$lora" -gt 0 ]; then adapters+=(--publish-as adapter); fi

# Puzzles with 2, 3 and 4 people: three distributions, each an arm of the bandit.
if [ ! -f "$out/pool.jsonl" ]; then
  kk-make --people 2,3,4 -n 40 --output "$out/pool.jsonl"
fi
ucb-sample --state "$out/ucb" --init --arms "$out/pool.jsonl"

# A model of 135M parameters needs an example, a short form, and its first words put into its mouth.
cat > "$out/prompt.txt" << 'PROMPT'
Mia said: "Leo is a knave". Leo said: "Mia is a knave and Kim is a knight". Kim said: "Mia is a knave". So who is a knight and who is a knave?
<answer>
(1) Mia is a knave
(2) Leo is a knight
(3) Kim is a knight
</answer>

{quiz}
PROMPT

# What policy-train says, up to its request for more puzzles after the last update: there the ring comes to rest.
until_last_update() {
  local line seen=no
  while IFS= read -r line; do
    if [[ $line == *'"step":'$steps[,}]* ]]; then seen=yes; fi
    if [[ $seen == yes && $line == *'"draws":'* ]]; then return; fi
    printf '%s\n' "$line"
  done
}

ring() {
  ucb-sample --state "$out/ucb" --pool "$out/pool.jsonl" -n "$tasks" --follow < "$out/feedback" |
    text-rollout --policy "$out/policy" --follow --on-error keep \
      --prompt-file "$out/prompt.txt" --raw-prompt --prefill $'<answer>\n(1)' \
      --stop '</answer>' --stop $'\n\n' \
      --samples "$samples" --response-tokens "$tokens" --temperature "$temperature" |
    kk-reward --credit people |
    group-advantage --group-size "$samples" |
    tee -a "$out/rollouts.jsonl" |
    policy-train --policy "$out/policy" --emit-feedback --steps-file "$out/steps.jsonl" \
      --batch-rows $((tasks * samples)) --temperature "$temperature" \
      "${adapters[@]}" --lr "$rate" |
    until_last_update > "$out/feedback"
}

if [ ! -e "$out/policy/current" ]; then
  policy-train --policy "$out/policy" --model "$model" "${adapters[@]}" < /dev/null  # version 0
fi
if [[ $(basename "$(readlink "$out/policy/current")") < $last ]]; then
  rm -f "$out/feedback"
  mkfifo "$out/feedback"
  set -m  # the ring is a process group of its own, so that a signal to this script can be handed to all of it
  ring &
  group=$!
  trap 'kill -TERM -- "-$group"' INT TERM HUP
  code=0
  { wait "$group" || code=$?; } 2> /dev/null
  while kill -0 -- "-$group" 2> /dev/null; do sleep 0.2; done
  rm -f "$out/feedback"
  if [ "$code" -ne 0 ]; then
    echo "dump.sh: ended early (exit code $code); start it again to go on" >&2
    exit "$code"
  fi
fi

echo
ucb-stats --state "$out/ucb" --table
ucb-stats --state "$out/ucb" --plot "$out/schedule.png" > /dev/null || echo "(no picture)"
echo
python3 - "$out/rollouts.jsonl" << 'PYTHON'
"""Mean reward of each distribution in the first and in the second half of the rollouts, and what varied in a group."""
import json
import sys

rows = [row for row in map(json.loads, open(sys.argv[1])) if "error" not in row]
for row in rows:
    row["reward"] = row["reward"]["total"] if isinstance(row["reward"], dict) else row["reward"]
print("distribution  early           late            groups with unlike rewards")
for name in sorted({row["distribution"] for row in rows}):
    cells = []
    for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        rewards = [row["reward"] for row in half if row["distribution"] == name]
        cells.append(f"{sum(rewards) / len(rewards):.3f} (n={len(rewards)})" if rewards else "-")
    groups = {}
    for row in rows:
        if row["distribution"] == name:
            groups.setdefault((row["id"], row["draw"], row["policy_version"]), set()).add(row["reward"])
    unlike = sum(len(rewards) > 1 for rewards in groups.values())
    print(f"{name:<14}{cells[0]:<16}{cells[1]:<16}{unlike} of {len(groups)}")
PYTHON
echo
echo "Files:"
for file in pool.jsonl ucb policy rollouts.jsonl steps.jsonl schedule.png; do
  echo "  $out/$file"
done
echo "Why each distribution stands where it does:  ucb-stats --state $out/ucb --explain | jq -r .why"
