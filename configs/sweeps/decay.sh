#!/usr/bin/env bash
# The lifetime of an exponential decay, fitted by gradient descent in awk: a program without Python.
#   decay.sh rate=0.05 momentum=0.9
# Writes one JSON object a line into the file that PTYDASK_METRICS names; by itself, to the terminal.
set -euo pipefail

rate=0.05 momentum=0 steps=60
for word in "$@"; do
    case $word in
        rate=* | momentum=* | steps=*) declare "$word" ;;
        *)
            echo "decay.sh: $word is not understood" >&2
            exit 2
            ;;
    esac
done

awk -v rate="$rate" -v momentum="$momentum" -v steps="$steps" '
    BEGIN {
        srand(7)
        for (i = 0; i < 40; i++) {
            t[i] = i / 8
            y[i] = 2 * exp(-t[i] / 1.5) + 0.1 * (rand() - 0.5)  # amplitude 2, lifetime 1.5
        }
        amplitude = lifetime = 1
        for (step = 1; step <= steps; step++) {
            loss = da = dl = 0
            for (i = 0; i < 40; i++) {
                e = exp(-t[i] / lifetime)
                miss = amplitude * e - y[i]
                loss += miss * miss / 40
                da += 2 * miss * e / 40
                dl += 2 * miss * amplitude * e * t[i] / lifetime ^ 2 / 40
            }
            va = momentum * va - rate * da
            vl = momentum * vl - rate * dl
            amplitude += va
            lifetime += vl
            printf "{\"step\": %d, \"loss\": %.9g, \"lifetime\": %.6g}\n", step, loss, lifetime
            fflush()
        }
    }' >> "${PTYDASK_METRICS:-/dev/stdout}"
