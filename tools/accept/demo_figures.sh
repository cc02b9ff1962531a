#!/bin/sh
# demo_figures.sh - the demo in numbers: exit 0, at most 6 minutes after the build, a
# page, and the mean accuracy of each method and merge on the four tasks.
set -eu
make all >/dev/null
rm -rf demo
start=$(date +%s)
make demo
took=$(($(date +%s) - start))
test -s demo/runs/report.html
# The first table of results.md: a model a row, a task a column.
mean() { # PATTERN with TASK: mean over the tasks' own adapters, or of one row
    awk -F'|' -v pattern="$1" '
        NR == 1 { for (i = 3; i <= 6; i++) { split($i, w, " "); task[i] = w[1] } next }
        /^$/ { exit }
        {
            gsub(/ /, "", $2)
            for (i = 3; i <= 6; i++) {
                want = pattern
                sub(/TASK/, task[i], want)
                if ($2 == want) { sum += $i; n++ }
            }
        }
        END { if (n) printf "%.1f %%\n", 100 * sum / n; else print "none" }' demo/runs/eval/results.md
}
for row in base TASK-lora TASK-lori-d TASK-lori-s cat-lora cat-lori-s linear-lora linear-lori-s; do
    printf '%-14s %s\n' "$row" "$(mean "$row")"
done
echo "$took s"
[ "$took" -le 360 ]
