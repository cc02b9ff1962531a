#!/bin/sh
# seeds.sh - recipes/tiny/four.yaml with three seeds (of the rows, of A, of the
# order): accuracies with 95 % Wilson intervals over all test rows, and the range
# over the seeds. The table of docs/RESULTS.md.
#   seeds.sh LORI OUT [SEED...]    OUT: folder to work in; given again, it goes on
set -eu
lori=$(readlink -f "$1") out=$2
shift 2
[ $# -gt 0 ] || set -- 1 2 3
here=$(cd "$(dirname "$0")/../.." && pwd)
tables=
for seed; do
    TEST=100 "$here/data/make.sh" "$out/data$seed" "$seed"
    "$lori" run "$here/recipes/tiny/four.yaml" --model "$here/models/tiny" --data-dir "$out/data$seed" --output "$out/runs$seed" "seed=$seed"
    tables="$tables $out/runs$seed/eval/results.md"
done
# The second table of results.md: | model | task | metric | n | value | ...
# shellcheck disable=SC2086
awk -F'|' '
function row(label, key,    p, z, half, mid, s, v, low, high) {
    if (!n[key])
        return
    p = right[key] / n[key]
    z = 1.959964
    mid = (p + z * z / (2 * n[key])) / (1 + z * z / n[key])
    half = z * sqrt(p * (1 - p) / n[key] + z * z / (4 * n[key] * n[key])) / (1 + z * z / n[key])
    low = 2
    high = -1
    for (s = 1; s <= seeds; s++) {
        v = right[key, s] / n[key, s]
        low = v < low ? v : low
        high = v > high ? v : high
    }
    printf "| %-28s | %5.1f | %5.1f to %5.1f | %5.1f to %5.1f | %d |\n", label, 100 * p, 100 * (mid - half), 100 * (mid + half), 100 * low, 100 * high, n[key]
}
function add(key, k, value) {
    n[key] += k
    right[key] += k * value
    n[key, seeds] += k
    right[key, seeds] += k * value
}
FNR == 1 { seeds++; table = 0 }
/^$/ { table++ }
table == 1 && NF > 5 && $5 + 0 > 0 {
    gsub(/ /, "", $2)
    gsub(/ /, "", $3)
    model = $2
    task = $3
    if (model ~ /^safety-(nlu|math|code)-/) { # safety first, then another
        split(model, part, "-")
        method = substr(model, length("safety-" part[2]) + 2)
        if (task == "safety") add("kept " method, $5, $6)
        if (task == part[2]) add("second " method, $5, $6)
        pairs[method] = 1
    } else if (index(model, task "-") == 1) { # its own task
        method = substr(model, length(task) + 2)
        add("single " method, $5, $6)
        add("single " method " " task, $5, $6)
        methods[method] = 1
    } else if (model == "base" || model ~ /^(cat|linear)-/) {
        add(model, $5, $6)
        add(model " " task, $5, $6)
        merges[model] = 1
    }
}
END {
    print "| what | accuracy, % | 95 % interval | over the seeds | rows |"
    print "|---|---|---|---|---|"
    order = split("nlu math code safety", name, " ")
    for (m in methods) {
        row(m ", single tasks", "single " m)
        for (t = 1; t <= order; t++) row(m ", " name[t], "single " m " " name[t])
    }
    for (m in merges) {
        row(m, m)
        for (t = 1; t <= order; t++) row(m ", " name[t], m " " name[t])
    }
    for (m in pairs) {
        row(m ", safety kept after another", "kept " m)
        row(m ", the second task", "second " m)
    }
}' $tables
