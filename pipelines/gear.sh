#!/usr/bin/env bash
# GEAR: hypotheses about observations, scored without labels, and a policy that learns from the scores. On a CPU, in
# about ten minutes of two cores.
#
#   pipelines/gear.sh
#   SAMPLES=4 HYPOTHESES=25 TOKENS=512 PAIRS=2000 LORA=128 RATE=1e-5 MODEL=Qwen/Qwen2.5-7B-Instruct pipelines/gear.sh
#
# Asks a model for hypotheses about small problems, makes preference pairs of what it said about half of them, trains
# one round of DPO on these, asks again, and shows the scores before and after, of the problems trained on and of the
# others.
#
# The embedded model, of 135M parameters, needs worked examples in the prompt and its first characters put into its
# mouth. It finds no rules, and training does not teach it to. In one run with the settings below, before: 112 of 148
# hypotheses could be run, 10 agreed with the observations, each of them an example's rule, the largest element. After 4
# updates on 32 pairs: 149 of 150 were that one function. So IF rises from .75 to .99 and C from .06 to .13 because the
# policy has collapsed, not because it is better; beta is 0 before and after, for lack of two valid hypotheses that
# differ, and no pair has the reason `fair`. The run shows how the parts fit together, and that IF and C are to be read
# with beta. For hypotheses worth reading, take a model of some billions, a lower rate and more problems.
#
# Every stage is a command of its own; kill it anywhere and start it again, and it goes on.
set -euo pipefail

samples=${SAMPLES:-2}        # conversations a problem
hypotheses=${HYPOTHESES:-5}  # most hypotheses a conversation
tokens=${TOKENS:-48}         # longest reply
pairs=${PAIRS:-32}           # most pairs to train on
lora=${LORA:-16}             # rank of the adapters that are trained
rate=${RATE:-5e-4}           # learning rate
beta=${BETA:-0.5}            # of DPO; the paper's
temperature=${TEMPERATURE:-0.7}
model=${MODEL:-embedded}
out=${OUT:-gear-out}

mkdir -p "$out"

# Rules on lists of numbers, each seen twice; a rule is either for training or held out. And lists nobody knows the
# output of, on which hypotheses are compared.
if [ ! -f "$out/problems.jsonl" ]; then
  python3 - > "$out/problems.part" << 'PYTHON'
"""A problem of two observations for each rule, twice with other lists."""
import json
import random

RULES = {
    "train": {
        "first": lambda x: x[:1],
        "reversed": lambda x: x[::-1],
        "doubled": lambda x: [2 * v for v in x],
        "without-last": lambda x: x[:-1],
        "largest": lambda x: [max(x)],
        "twice": lambda x: x + x,
    },
    "held-out": {
        "last": lambda x: x[-1:],
        "sorted": sorted,
        "one-less": lambda x: [v - 1 for v in x],
        "smallest": lambda x: [min(x)],
        "length": lambda x: [len(x)],
        "same": lambda x: x,
    },
}
rng = random.Random(0)
for part, rules in RULES.items():
    for name, rule in rules.items():
        for copy in range(2):
            lists = [[rng.randrange(1, 20) for _ in range(length)] for length in (3, 4)]
            pairs = [[x, rule(x)] for x in lists]
            print(json.dumps({"id": f"{name}-{copy}", "dataset": part, "observations": pairs}))
PYTHON
  mv "$out/problems.part" "$out/problems.jsonl"
fi
if [ ! -f "$out/space.jsonl" ]; then
  gear-space list-function --per-length 20 --space-repeats --output "$out/space.jsonl"
fi

cat > "$out/prompt.txt" << 'PROMPT'
Pair 0: ([5, 3], [6, 4])
Pair 1: ([8], [9])
("one more than each", "def f(x): return [v + 1 for v in x]")

Pair 0: ([6, 2, 8], [8])
Pair 1: ([5, 1], [5])
("the largest", "def f(x): return [max(x)]")

{observations}
PROMPT
words=(--prompt-file "$out/prompt.txt" --followup super-short)

# What a model says about all problems, and the scores of it.
ask() {
  local name=$1
  shift
  if [ ! -f "$out/$name.jsonl" ]; then
    gear-ask "$out/problems.jsonl" --space "$out/space.jsonl" "$@" "${words[@]}" \
      --prefill '("' --stop '")' --reply-tokens "$tokens" --temperature "$temperature" --top-p 0.9 \
      --samples "$samples" --max-hypotheses "$hypotheses" --output "$out/$name.jsonl" --resume
  fi
  gear-score "$out/$name.jsonl" --space "$out/space.jsonl" --output "$out/$name.scored.jsonl"
}

ask before --model "$model"

# Pairs of what was said about the problems to train on: as many of each reason as there are of the scarcest, or, where
# that would be few, as they come.
if [ ! -f "$out/pairs.jsonl" ]; then
  paired() {
    grep -F '"dataset":"train"' <(sed 's/"dataset": /"dataset":/' "$out/before.jsonl") |
      gear-pairs --pooled --contexts 0,1 --space "$out/space.jsonl" "${words[@]}" --max-pairs "$pairs" -v "$@"
  }
  paired --balance even > "$out/pairs.part"
  if [ "$(wc -l < "$out/pairs.part")" -lt $((pairs / 2)) ]; then
    paired > "$out/pairs.part"
  fi
  mv "$out/pairs.part" "$out/pairs.jsonl"
fi

dpo-train "$out/pairs.jsonl" --policy "$out/policy" --model "$model" --lora "$lora" --lr "$rate" --beta "$beta" \
  --batch-rows 8 --epochs 1 > "$out/steps.jsonl"

ask after --policy "$out/policy"

echo
for name in before after; do
  echo "$name one round of DPO:"
  gear-stats -q --table "$out/$name.scored.jsonl"
  echo
done
echo "Files:"
for file in problems.jsonl space.jsonl before.jsonl before.scored.jsonl pairs.jsonl policy steps.jsonl \
  after.jsonl after.scored.jsonl; do
  echo "  $out/$file"
done
echo "What was said:  jq -c '.id as \$id | .hypotheses[] | [\$id, .status, .text, .code]' $out/after.jsonl"
