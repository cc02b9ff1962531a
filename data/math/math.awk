# math.awk - word problems of one step, with their working and "#### result".
# Numbers stay within 0 .. 40.

BEGIN {
    begin("math")
    templates["train", "start"] = "{N} has {a} {t}.|{N} owns {a} {t}.|{N} starts with {a} {t}.|In the bag of {N} there are {a} {t}."
    templates["train", "gain"] = "{P} buys {k} more.|{P} finds {k} more.|{M} gives {p} {k} more.|{P} gets {k} from {M}."
    templates["train", "loss"] = "{P} gives {k} to {M}.|{P} loses {k}.|{P} sells {k} of them.|{M} takes {k}."
    templates["train", "ask"] = "How many {t} does {N} have now?|How many {t} does {N} have in the end?|How many {t} are there now?"
    templates["train", "groups"] = "{N} has {a} boxes with {k} {t} each.|{N} buys {a} bags, and each bag holds {k} {t}."
    templates["test", "start"] = "This morning {N} had {a} {t}.|At first {N} holds {a} {t}.|{N} brings {a} {t} to school."
    templates["test", "gain"] = "Then {p} picks up {k} more.|Later {M} adds {k}.|{P} wins another {k}."
    templates["test", "loss"] = "Then {p} drops {k} of them.|{P} throws away {k}.|Later {k} are sold to {M}."
    templates["test", "ask"] = "What is the number of {t} now?|So how many {t} has {N} got?|Count the {t} of {N}."
    templates["test", "groups"] = "{N} fills {a} boxes, and every box gets {k} {t}.|{a} bags stand beside {N}. Each has {k} {t} in it."
    while (made < n)
        problem()
    exit
}

# What happens to `total`: its sentence is added to `text`; `working` is its sum.
function event(    name, k, before) {
    before = total
    name = total >= 4 && (total > 28 || chance(2)) ? "loss" : "gain"
    k = between(2, name == "loss" && total < 10 ? total - 1 : 9)
    total += name == "gain" ? k : -k
    text = text " " fill(fill(template(name), "k", k), "M", other)
    working = before (name == "gain" ? " + " : " - ") k " = " total "\n"
}

function problem(    who, name, a, k, grouped, thing) {
    who = one_of("she|he")
    name = pick(who)
    do
        other = pick(one_of("she|he"))
    while (other == name)
    thing = pick("counted") "s"
    grouped = chance(4) == 0
    if (grouped) {
        a = between(2, 5)
        k = between(2, 6)
        total = a * k
        text = fill(template("groups"), "k", k)
        working = a " * " k " = " total "\n"
    } else {
        a = between(2, 20)
        total = a
        text = template("start")
    }
    text = fill(text, "a", a)
    if (!grouped)
        event()
    text = text " " template("ask")
    text = fill(fill(text, "N", name), "t", thing)
    text = fill(fill(text, "P", who == "she" ? "She" : "He"), "p", who == "she" ? (text ~ /gives {p}/ ? "her" : "she") : (text ~ /gives {p}/ ? "him" : "he"))
    emit(cap(text), working "#### " total, "\"answer\": \"" total "\"")
}
