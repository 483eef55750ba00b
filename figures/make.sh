#!/usr/bin/env bash
# Makes the gallery again, all of it or the parts that are named:
#     figures/make.sh [encoders] [zoo] [merges] [measures] [cpu_atlas] [learned] [validation] [multimerge] [mergeability_bench]
# The last two need numbers of others: MULTIMERGE names a checkout of github.com/Sethjsa/multimerge or its
# pairs as CSV, MERGEABILITY_BENCH a table of merges with model_a, model_b, method, features and accuracies.
# Tables that the figures are drawn from go to out/; OUT names another folder for the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-figures}

encoders() {
    repsim models --fetch e5-small --fetch minilm
    repsim compare e5-small minilm --corpus kolibri -l eng_Latn -l deu_Latn -l spa_Latn \
        -l arb_Arab -l hin_Deva -l zho_Hans -o out/first
    repsim plot out/first --format png -o "$out/encoders"
}

zoo() {
    repsim compare zoo:eng-1 zoo:eng-2 zoo:deu-1 zoo:mixed zoo:eng-fork zoo:deu-fork \
        --corpus bible-heldout -l eng_Latn -l deu_Latn --limit 300 -o out/zoo
    repsim plot out/zoo --kind ladder --kind space --kind layers --kind heatmap --format png \
        -o "$out/zoo"
    repsim barrier zoo:eng-1 zoo:eng-2 -l eng_Latn --align permutation --align orthogonal \
        --max-bytes 60000 -o out/barrier
    cp out/barrier/barrier.png "$out/zoo/barrier.png"
    OUT="$out" python - <<'PY'
import os

import repsim
from repsim.corpora import load_corpus
from repsim.measures import dissimilarities
from repsim.plots import FIGURES, save_figure

corpus = load_corpus("bible-heldout", languages=["eng_Latn", "deu_Latn"], limit=40)
read = [one for name in ("zoo:mixed", "zoo:eng-1") for one in repsim.extract(name, corpus)]
figure = FIGURES["rdm"](dissimilarities(read, by="sentence"))
save_figure(figure, f"{os.environ['OUT']}/zoo/rdm", ("png",))
PY
}

merges() { OMP_NUM_THREADS=1 python tests/benchmarks/zoo_merges.py; }

measures() { repsim measures --recommend --figure "$out/measures/ranking.png"; }

cpu_atlas() { repsim study report cpu_atlas -o "$out/cpu_atlas"; }

learned() { python tests/benchmarks/learned_alignment_report.py; }

validation() {
    repsim predictor validate -o out/validation
    mkdir -p "$out/validation"
    cp -r out/validation/report.* out/validation/figures out/validation/tables "$out/validation"
    rm "$out"/validation/tables/all-*.csv
}

multimerge() {
    repsim study report "multimerge:${MULTIMERGE:?}" -o out/multimerge
    mkdir -p "$out/multimerge/tables"
    cp out/multimerge/figures/pairs.* "$out/multimerge"
    cp out/multimerge/tables/{similarity,leverage}.* "$out/multimerge/tables"
}

mergeability_bench() {
    for outcome in accuracy normalised_accuracy; do
        repsim predictor validate --table "${MERGEABILITY_BENCH:?}" --parents model_a,model_b \
            --outcome "${outcome}_a,${outcome}_b" --protocol \
            --split leave-one-member-out --split leave-models-out -o "out/bench/$outcome"
        mkdir -p "$out/mergeability_bench/$outcome"
        cp out/bench/"$outcome"/{figures/scores.*,outcome_scores.csv} "$out/mergeability_bench/$outcome"
    done
}

for part in "${@:-encoders zoo merges measures cpu_atlas validation}"; do
    for name in $part; do "$name"; done
done
