#!/usr/bin/env bash
# DUMP: a curriculum that learns, while a policy does, which puzzles still teach it something. On a CPU, in minutes.
#
#   pipelines/dump.sh
#   STEPS=200 TASKS=32 SAMPLES=8 LORA=0 RATE=1e-6 MODEL=Qwen/Qwen2.5-3B-Instruct OUT=run1 pipelines/dump.sh
#
# Six resident processes in a ring of pipes: ucb-sample draws puzzles, text-rollout answers them with the newest policy,
# kk-reward and group-advantage judge the answers, policy-train learns from them and tells ucb-sample through a named
# pipe what it learned from what, and asks for more. Kill it anywhere and start it again, and it goes on; rollouts that
# were under way are lost, nothing else.
set -euo pipefail

steps=${STEPS:-12}     # updates of the policy, over all runs
tasks=${TASKS:-4}      # puzzles an update
samples=${SAMPLES:-4}  # answers a puzzle
tokens=${TOKENS:-48}   # longest answer
temperature=${TEMPERATURE:-0.7}
lora=${LORA:-16}       # rank of the adapters that are trained; 0 trains all weights
rate=${RATE:-5e-4}     # learning rate
model=${MODEL:-embedded}
out=${OUT:-dump-out}

mkdir -p "$out"
last=$(printf 'v%06d' "$steps")

# Puzzles with 2, 3 and 4 people: three distributions, each an arm of the bandit.
if [ ! -f "$out/pool.jsonl" ]; then
  kk-make --people 2,3,4 -n 40 --output "$out/pool.jsonl"
fi
ucb-sample --state "$out/ucb" --init --arms "$out/pool.jsonl"

# A model of 135M parameters needs an example, a short form, and to be begun for.
cat > "$out/prompt.txt" << 'PROMPT'
Mia said: "Leo is a knave". Leo said: "Mia is a knave and Kim is a knight". Kim said: "Mia is a knave". So who is a knight and who is a knave?
<answer>
(1) Mia is a knave
(2) Leo is a knight
(3) Kim is a knight
</answer>

{quiz}
PROMPT

# What policy-train says, up to its request for more puzzles after the last update: then the ring comes to rest.
until_last_update() {
  awk -v step="\"step\":$steps[,}]" '$0 ~ step { last = 1 } last && /"draws"/ { exit } { print; fflush() }'
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
    policy-train --policy "$out/policy" --emit-feedback --steps "$out/steps.jsonl" \
      --batch-rows $((tasks * samples)) --temperature "$temperature" \
      --lora "$lora" --lr "$rate" |
    until_last_update > "$out/feedback"
}

if [ ! -e "$out/policy/current" ]; then
  policy-train --policy "$out/policy" --model "$model" --lora "$lora" < /dev/null
fi
if [[ $(basename "$(readlink "$out/policy/current")") < $last ]]; then
  rm -f "$out/feedback"
  mkfifo "$out/feedback"
  set -m  # the ring is a process group of its own, so that a signal to this script can be handed to all of it
  ring &
  group=$!
  trap 'kill -TERM -- "-$group"' INT TERM HUP
  code=0
  wait "$group" || code=$?
  while kill -0 -- "-$group" 2> /dev/null; do sleep 0.2; done
  rm -f "$out/feedback"
  [ "$code" -eq 0 ] || exit "$code"
fi
