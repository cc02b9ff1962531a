# make_orders.awk - the demo's task: a note in plain English becomes an order
# line. Writes JSON Lines {"prompt", "completion"} to standard output.
#
#   awk -f make_orders.awk -v part=train|valid|test -v n=400 -v seed=1
#
# train and valid share sentence templates (not sentences); the test split uses
# templates that training never shows, and some of its items and names are
# unseen too. Same arguments, same bytes.

function rnd(k) { # 0 .. k-1, a 32-bit linear congruential generator's top bits
    state = (state * 69069 + 12345) % 4294967296
    return int(state / 65536) % k
}

function pick(list, parts, k) {
    k = split(list, parts, "|")
    return parts[1 + rnd(k)]
}

function cap(word) {
    return toupper(substr(word, 1, 1)) substr(word, 2)
}

BEGIN {
    if (part != "train" && part != "valid" && part != "test") {
        print "make_orders.awk: -v part=train|valid|test" > "/dev/stderr"
        exit 2
    }
    state = (seed * 7919 + (part == "train" ? 1 : part == "valid" ? 2 : 3)) % 4294967296
    names = "anna|ben|clara|david|emma|felix|grace|henry|iris|jonas|karen|leo|alice|bruno|carmen|dora|edgar|fiona|george|hanna|ivan|julia|kevin|laura|mario|nadia|oscar|paula|ralph|sarah|thomas|vera|walter|zoe"
    items = "apples|bread|carrots|coffee|eggs|flour|honey|milk|onions|pears|rice|sugar|tea|tomatoes|beans|butter|cocoa|dates|figs|garlic|ham|jam|lentils|melons|noodles|olives|pepper|salt"
    if (part == "test") {
        names = names "|martha|nils|olivia|peter|rosa|simon"
        items = items "|almonds|basil|cheese|lemons|mushrooms|oats|plums"
    }
    units = "kg|bags|boxes|jars|packs"
    days = "monday|tuesday|wednesday|thursday|friday|saturday"
    t["train", 0] = "{N} needs {A} {U} of {I} by {D}."
    t["train", 1] = "Please get {A} {U} of {I} to {N} on {D}."
    t["train", 2] = "Could you send {N} {A} {U} of {I}? {D} is fine."
    t["train", 3] = "For {D}: {A} {U} of {I}, and the customer is {N}."
    t["train", 4] = "{N} called and ordered {I}, {A} {U}, for {D}."
    t["train", 5] = "On {D} we deliver {A} {U} of {I} to {N}."
    t["train", 6] = "Put {A} {U} of {I} aside for {N}; pickup is {D}."
    t["train", 7] = "{I}: {A} {U}. Who: {N}. When: {D}."
    t["test", 0] = "It was {N} who asked whether {A} {U} of {I} could be there on {D}."
    t["test", 1] = "By {D}, {N} would like to have {A} {U} of {I}."
    t["test", 2] = "We promised {N} some {I} ({A} {U}) before {D} ends."
    t["test", 3] = "{D} delivery, {N}'s house, {A} {U} of {I}."
    templates = part == "test" ? 4 : 8
    from = part == "test" ? "test" : "train"
    made = 0
    while (made < n) {
        name = pick(names); item = pick(items); unit = pick(units)
        day = pick(days); amount = 1 + rnd(12)
        text = t[from, rnd(templates)]
        gsub(/{N}/, cap(name), text); gsub(/{A}/, amount, text)
        gsub(/{U}/, unit, text); gsub(/{I}/, item, text)
        gsub(/{D}/, cap(day), text)
        text = cap(text)
        # No sentence stands in both train and valid: the parity of a sum over
        # its parts decides which of the two may hold it.
        key = length(name) * 31 + length(item) * 17 + amount * 7 + length(day) + length(unit)
        if (part == "train" && key % 5 == 0)
            continue
        if (part == "valid" && key % 5 != 0)
            continue
        if (text in seen)
            continue
        seen[text] = 1
        made++
        printf "{\"prompt\": \"Note: %s\\nOrder:\", \"completion\": \" customer=%s; item=%s; amount=%d %s; day=%s\"}\n", text, name, item, amount, unit, day
    }
}
