# leaks.awk - whether a test set shares a prompt, or the form of a sentence,
# with the rows before it. A sentence's form is what is left when every word of
# words.txt, every pronoun, every variable and every number is blanked; the
# lines that list four choices have one form in all sets.
#
#   awk -f data/leaks.awk -v words=data/words.txt train.jsonl valid.jsonl test.jsonl
#
# The last file is the test set; rows must not occur twice in any set either.
# Prints the first leaks and a count line; exit 1 when there is any.

function read_words(    line, list, k, i, parts, m) {
    k = split("she he her him x y z", list, " ")
    for (i = 1; i <= k; i++)
        blank[list[i]] = 1
    while ((getline line < words) > 0) {
        if (line ~ /^#/ || !sub(/^[a-z]+: /, "", line))
            continue
        k = split(line, list, /[|= ]/)
        for (i = 1; i <= k; i++)
            blank[list[i]] = 1
    }
    close(words)
    if (!("Anna" in blank)) {
        print "leaks.awk: -v words=" words ": no words there" > "/dev/stderr"
        exit 2
    }
}

function form(sentence,    k, i, list, word, singular, out) {
    k = split(sentence, list, " ")
    for (i = 1; i <= k; i++) {
        word = list[i]
        gsub(/[^A-Za-z0-9]/, "", word)
        singular = word
        sub(/s$/, "", singular)
        if (word in blank || tolower(word) in blank || singular in blank || word ~ /^[0-9]+$/)
            word = "_"
        out = out " " word
    }
    return out
}

# Counts a leak and shows the first of each kind.
function leak(kind, text) {
    if (leaks[kind]++ < 3)
        print "leak: " kind ": " text
    total++
}

BEGIN {
    read_words()
    last = ARGV[ARGC - 1]
}

{
    prompt = $0
    if (!sub(/^\{"prompt": "/, "", prompt) || !sub(/", "completion": .*/, "", prompt)) {
        print FILENAME ":" FNR ": no row that begins with prompt and completion"
        total++
        next
    }
    if ((FILENAME, prompt) in own)
        leak("row twice in one set", prompt)
    own[FILENAME, prompt] = 1
    if (prompt in row && row[prompt] != FILENAME)
        leak("row in two sets", prompt)
    row[prompt] = FILENAME
    rows[FILENAME]++
    k = split(prompt, sentence, /\\n|[.?!] |[.?!]$/)
    for (i = 1; i <= k; i++) {
        if (sentence[i] == "" || sentence[i] ~ /^[a-z]+(, [a-z]+)+$/)
            continue
        shape = form(sentence[i])
        if (FILENAME != last)
            known[shape] = 1
        else if (shape in known)
            leak("sentence form of the training rows", sentence[i])
        else
            forms[shape] = 1
    }
}

END {
    for (shape in forms)
        new++
    for (shape in known)
        old++
    printf "%d test rows, %d sentence forms of their own, %d in training, %d leaks\n", rows[last], new, old, total
    exit total > 0
}
