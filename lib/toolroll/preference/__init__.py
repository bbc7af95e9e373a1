"""Preference pairs without a judge: answers that hallucinate on purpose, a contrastive check, captions evaluated.

    decision     keep, reverse or drop a pair by its scores
    answers      what is wrong with an answer by itself: empty, a refusal, a loop
    deciding     records decided
    foreign      pairs of other projects in TRL's form
    mentions     what a text names, against what there is; coco has words for that
    sentences    texts in sentences, sentences in windows of tokens
    encoders     images and texts as vectors
    scores       texts scored by their images; scoring does so with records
    strength     how much an answer is to hallucinate
    mixing       two distributions of the next token as one
    branches     two branches decoded side by side
    unseeing     what the unconditioned branch gets to see
    generating   records of pairs that a model writes
    stats        many pairs in numbers

Paper: arXiv:2411.17760, whose code and values were not available: every default is ours.
"""
