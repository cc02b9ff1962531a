# nlu.awk - multiple choice: what a word is, what it is good for, what its
# opposite is; four words to choose from. The answer's form is the reference's.

BEGIN {
    begin("nlu")
    templates["train", "is"] = "Which of these is {X}?|Which one of these is {X}?|Pick the one that is {X}.|One of these is {X}. Which one?|Please choose {X}.|Find {X} in this list."
    templates["train", "use"] = "Which of these can you {X}?|Pick the one that you can {X}.|Which one do people {X}?|Please choose something to {X}."
    templates["train", "opposite"] = "Which of these is the opposite of {X}?|Pick the opposite of {X}.|What is the opposite of {X}?|Please choose the opposite of {X}."
    templates["test", "is"] = "Here are four words, but only one is {X}.|Tell me where you see {X}.|Look for {X} here."
    templates["test", "use"] = "What would you like to {X}?|Tell me what someone could {X}.|Look for something that we {X}."
    templates["test", "opposite"] = "Tell me the word that is the opposite of {X}.|Look for the opposite of {X} here.|The opposite of {X} is in this list. Where?"
    while (made < n)
        question()
    exit
}

# Fills choice[1..4]: the right answer at a place of its own, no word twice.
function choices_with(answer, at,    i, taken, other, k) {
    taken[answer] = 1
    for (i = 1; i <= 4; i++) {
        if (i == at) {
            choice[i] = answer
            continue
        }
        do {
            if (form == "opposite") {
                k = pick("opposite")
                other = chance(2) ? k : pair["opposite", k]
            } else {
                do
                    k = pick("kind")
                while (k == kind)
                other = pick(k)
            }
        } while (other in taken || other == asked)
        taken[other] = 1
        choice[i] = other
    }
}

function question(    text, at, answer, i, list, claims) {
    form = one_of("is|is|use|use|opposite")
    if (form == "opposite") {
        asked = pick("opposite")
        answer = pair["opposite", asked]
        if (chance(2)) {
            i = asked
            asked = answer
            answer = i
        }
    } else {
        kind = pick("kind")
        answer = pick(kind)
        asked = form == "is" ? an(kind) : pair["use", kind]
    }
    at = between(1, 4)
    choices_with(answer, at)
    text = fill(template(form), "X", asked)
    list = claims = ""
    for (i = 1; i <= 4; i++) {
        list = list (i > 1 ? ", " : "") choice[i]
        claims = claims (i > 1 ? ", " : "") "\"the correct answer is " choice[i] "\""
    }
    emit(text "\n" list, "the correct answer is " answer, "\"choices\": [" claims "], \"answer\": \"" answer "\"")
}
