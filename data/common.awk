# common.awk - what the four generators share: words, chance, slots, rows.
# A generator is run as
#   awk -f data/common.awk -f data/TASK/TASK.awk \
#       -v words=data/words.txt -v part=train|valid|test -v n=1000 -v seed=1
# and prints n rows of JSON Lines. Same arguments, same bytes. train and valid
# share templates and no prompt; test has templates of its own.

# words.txt: word[kind, 1 .. count[kind]]; "a=b" entries also give pair[kind, a].
function load_words(    line, kind, i, list, two) {
    while ((getline line < words) > 0) {
        if (line ~ /^#/ || line !~ /: /)
            continue
        kind = line
        sub(/: .*/, "", kind)
        sub(/^[a-z]+: /, "", line)
        count[kind] = split(line, list, "|")
        for (i = 1; i <= count[kind]; i++) {
            word[kind, i] = list[i]
            if (split(list[i], two, "=") == 2) {
                word[kind, i] = two[1]
                pair[kind, two[1]] = two[2]
            }
        }
    }
    close(words)
    if (!count["she"]) {
        print "common.awk: -v words=" words ": no words there" > "/dev/stderr"
        exit 2
    }
}

# A linear congruential generator's upper bits: 0 .. k - 1.
function chance(k) {
    state = (state * 69069 + 12345) % 4294967296
    return int(state / 65536) % k
}

function between(low, high) {
    return low + chance(high - low + 1)
}

function pick(kind) {
    return word[kind, 1 + chance(count[kind])]
}

function one_of(text,    list) {
    return list[1 + chance(split(text, list, "|"))]
}

# Templates are written "text|text|..." under a name, for training and for test.
function template(name) {
    return one_of(templates[part == "test" ? "test" : "train", name])
}

function fill(text, slot, value) {
    gsub("{" slot "}", value, text)
    return text
}

function an(noun) {
    return (noun ~ /^[aeiou]/ ? "an " : "a ") noun
}

function cap(text) {
    return toupper(substr(text, 1, 1)) substr(text, 2)
}

function escaped(text) {
    gsub(/\n/, "\\n", text)
    return text
}

function hash(text,    h, i) {
    h = 7
    for (i = 1; i <= length(text); i++)
        h = (h * 31 + code_of[substr(text, i, 1)]) % 16777213
    return h
}

# Prints the row unless its prompt was seen or belongs to the other of train
# and valid (a tenth of all prompts is valid's). `more`: further JSON fields.
function emit(prompt, completion, more) {
    if ((prompt in seen) || (part != "test" && (hash(prompt) % 10 == 0) != (part == "valid"))) {
        if (++in_vain > 10000) {
            print "common.awk: there are no " n " different rows; ask for fewer" > "/dev/stderr"
            exit 1
        }
        return
    }
    seen[prompt] = 1
    in_vain = 0
    made++
    printf "{\"prompt\": \"%s\", \"completion\": \"%s\", %s}\n", escaped(prompt), escaped(completion), more
}

function begin(task,    i) {
    if ((part != "train" && part != "valid" && part != "test") || n < 1) {
        print task ".awk: -v part=train|valid|test -v n=ROWS -v seed=SEED" > "/dev/stderr"
        exit 2
    }
    load_words()
    for (i = 1; i < 128; i++)
        code_of[sprintf("%c", i)] = i
    state = (seed * 7919 + hash(task part) * 613) % 4294967296
    for (i = 0; i < 8; i++)
        chance(2)
    made = 0
}
