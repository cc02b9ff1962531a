"""The text that models/tiny is pretrained on: documents made from data/words.txt.

It holds the language of the four tasks (their words, sentences of their kind,
stories with their sums, which of some words is of a kind, names of expressions,
what is private, chat turns), all in statements, but no task: no question with
its answer, no request with its fulfilment or refusal. The assistant of its chats
says again what it has heard, in the words of the matter. Same seed, same documents.

What cannot be known (which words are listed, which numbers are added) stands
between GUESS and KNOW: it is read but not learned, see `spans`.
"""

import random

PRONOUN = {"she": ("She", "she", "her"), "he": ("He", "he", "him")}
GAIN = ["buys", "finds", "gets", "wins", "picks up", "adds", "takes home", "collects", "receives"]
LOSS = ["loses", "sells", "drops", "throws away", "gives away", "breaks", "uses up", "hands out"]
# Other ways to say an operation: (symbol, phrases over {x} and {y}).
OPERATIONS = [
    ("+", ["the sum of {x} and {y}", "{x} plus {y}", "the total of {x} and {y}", "{x} increased by {y}", "{y} added to {x}"]),
    ("-", ["the difference of {x} and {y}", "{x} minus {y}", "{x} decreased by {y}", "{x} less {y}", "{y} taken from {x}"]),
    ("*", ["the product of {x} and {y}", "{x} times {y}", "{x} multiplied by {y}"]),
    ("//", ["{x} divided by {y}", "the quotient of {x} and {y}", "the whole part of {x} over {y}"]),
    ("%", ["the remainder of {x} divided by {y}", "{x} modulo {y}", "what remains of {x} over {y}"]),
    ("max", ["the larger of {x} and {y}", "the maximum of {x} and {y}", "the greater of {x} and {y}"]),
    ("min", ["the smaller of {x} and {y}", "the minimum of {x} and {y}", "the lesser of {x} and {y}"]),
]
NUMBER_WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
                "fifteen sixteen seventeen eighteen nineteen twenty").split()
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
GUESS, KNOW = "\x01", "\x02"


def load_words(path):
    words = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#") or ": " not in line:
                continue
            kind, rest = line.rstrip("\n").split(": ", 1)
            words[kind] = rest.split("|")
    words["use"] = dict(pair.split("=") for pair in words["use"])
    words["opposite"] = [tuple(pair.split("=")) for pair in words["opposite"]]
    return words


def an(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def cap(text):
    return text[0].upper() + text[1:]


def turn(role, text):
    return f"{IM_START}{role}\n{text}{IM_END}\n"


def chat(user, assistant):
    return turn("user", user) + turn("assistant", assistant).rstrip("\n")


def guess(text):
    return GUESS + text + KNOW


def spans(document):
    """(text, [(from, to)]): without the marks, and the characters between them."""
    text, free, start = "", [], 0
    for part in document.split(GUESS):
        unknown, mark, known = part.rpartition(KNOW)
        if mark:
            free.append((len(text), len(text) + len(unknown)))
        text += unknown + known
    return text, free


class Text:
    def __init__(self, words, seed):
        self.w = words
        self.r = random.Random(seed)
        self.nouns = [(kind, noun) for kind in words["kind"] for noun in words[kind]]

    def person(self):
        who = self.r.choice(["she", "he"])
        return (self.r.choice(self.w[who]), *PRONOUN[who])

    def people(self, n):
        found = {}
        while len(found) < n:
            person = self.person()
            found[person[0]] = person
        return list(found.values())

    def anyone(self):
        return self.person()[0] if self.r.random() < 0.5 else self.r.choice(self.w["person"])

    # ---- people and things ----------------------------------------------

    def holdings(self):
        """Who has how many of what, and the same said again in other words."""
        r = self.r
        people = self.people(r.randint(2, 3))
        things = r.sample(self.w["counted"], len(people))
        numbers = [r.randint(2, 40) for _ in people]
        first = ["{N} has {k} {t}.", "There are {k} {t} in the bag of {N}.", "{N} owns {k} {t}.",
                 "In the morning {N} had {k} {t}.", "{N} keeps {k} {t} at home.", "{N} starts the day with {k} {t}.",
                 "{k} {t} stand beside {N}.", "{N} counts {k} {t}.", "{N} brings {k} {t} to the market."]
        again = ["The {k} {t} are from {N}.", "It is {N} who has the {t}.", "The number of {t} is {k}.",
                 "{N} is the one with {k} {t}.", "So {N} has got {k} {t}.", "So many {t}: {k}."]
        rows = list(zip(people, things, numbers))
        out = [self.say(r.choice(first), *row) for row in rows]
        r.shuffle(rows)
        return " ".join(out + [self.say(r.choice(again), *row) for row in rows])

    @staticmethod
    def say(template, person, thing, k):
        return cap(template.format(N=person[0], P=person[1], p=person[2], t=thing + "s", k=k))

    def events(self):
        """What makes more of a thing and what makes less."""
        r = self.r
        (name, P, p, him), (other, *_) = self.people(2)
        t, k = r.choice(self.w["counted"]) + "s", r.randint(2, 20)
        more = r.random() < 0.5
        if more:
            act = r.choice([f"{r.choice(GAIN)} {k} {t}", f"{r.choice(GAIN)} {k} more {t}", f"gets {k} {t} from {other}",
                            f"{r.choice(GAIN)} another {k} {t}"])
        else:
            act = r.choice([f"{r.choice(LOSS)} {k} {t}", f"{r.choice(LOSS)} {k} of the {t}", f"gives {k} {t} to {other}"])
        start = r.choice([name, "Today " + name, "At first " + name, "Then " + name, "Later " + name])
        change = r.choice([f"now {p} has {'more' if more else 'fewer'} {t} than before",
                           f"the number of {t} goes {'up' if more else 'down'} by {k}",
                           f"that is {'plus' if more else 'minus'} {k}", f"{'+' if more else '-'} {k}"])
        tail = r.choice(["", f" {other} sees it.", f" How many {t} are there? Nobody has counted them.",
                         f" {other} is happy for {him}.", f" In the end {P.lower()} goes home."])
        passive = r.random() < 0.25
        if passive and more:
            return f"{k} more {t} are given to {name} by {other}, so {change}.{tail}"
        if passive:
            return f"{k} {t} are sold to {other} by {name}, so {change}.{tail}"
        return f"{start} {act}, so {change}.{tail}"

    def story(self, events):
        """What is told; (value, sign, k) of each sum; the things' name, the last value."""
        r = self.r
        (name, P, p, him), (other, *_) = self.people(2)
        t, value = r.choice(self.w["counted"]) + "s", r.randint(2, 20)
        if r.random() < 0.25:
            a, k = r.randint(2, 5), r.randint(2, 6)
            told = [r.choice([f"{name} has {a} boxes with {k} {t} each.", f"{a} bags of {name} hold {k} {t} each.",
                              f"{name} packs {a} boxes, and every box gets {k} {t}."])]
            return told, [(a, "*", k)], p, t, a * k
        told = [r.choice([f"{name} has {value} {t}.", f"{name} owns {value} {t}.", f"Today {name} had {value} {t}.",
                          f"There are {value} {t} in the bag of {name}.", f"{name} brings {value} {t}.", f"{name} begins with {value} {t}."])]
        sums = []
        for _ in range(events):
            more = value < 4 or (value < 29 and r.random() < 0.5)
            k = r.randint(2, 9 if more or value > 9 else value - 1)
            if more:
                told.append(r.choice([f"{P} {r.choice(GAIN)} {k} more.", f"Then {p} {r.choice(GAIN)} another {k}.", f"{other} gives {him} {k} more.",
                                      f"{P} gets {k} from {other}.", f"Later {other} adds {k}."]))
            else:
                told.append(r.choice([f"{P} {r.choice(LOSS)} {k} of them.", f"Then {p} {r.choice(LOSS)} {k}.", f"{P} gives {k} to {other}.",
                                      f"{other} takes {k}.", f"{k} are sold to {other}."]))
            sums.append((value, "+" if more else "-", k))
            value += k if more else -k
        return told, sums, p, t, value

    def stories(self):
        """One or two things happen to a number, and the sums of it."""
        r = self.r
        told, sums, p, t, value = self.story(r.choice([1, 1, 1, 2]))
        result = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
        lines = [f"{a} {sign} {b} = {result[sign](a, b)}" for a, sign, b in sums]
        end = r.choice([f"Now {p} has {value}.", f"So many {t}: {value}.", f"That makes {value} {t}.", ""])
        return guess(" ".join(told) + "\n") + "\n".join(lines) + "\n" + end

    def groups(self):
        r = self.r
        a, k = r.randint(2, 9), r.randint(2, 9)
        t, (name, *_) = r.choice(self.w["counted"]) + "s", self.person()
        box = r.choice(["box", "basket", "bag"])
        boxes = "boxes" if box == "box" else box + "s"
        return r.choice([f"{name} packs {k} {t} into each of {a} {boxes}, so that is {a} times {k}.",
                         f"With {k} {t} in every {box} and {a} {boxes}, {name} has {a} * {k} {t}.",
                         f"Each {box} holds {k} {t}. The {boxes} of {name} are {a}."])

    # ---- what words mean ------------------------------------------------

    def kinds(self):
        r = self.r
        kind = r.choice(self.w["kind"])
        some = r.sample(self.w[kind], 3)
        use = self.w["use"][kind]
        return r.choice([
            f"{cap(an(some[0]))} is {an(kind)}. You can {use} {an(some[0])}.",
            f"{cap(an(some[0]))} and {an(some[1])}: each of them is {an(kind)}.",
            f"People {use} {an(some[0])} or {an(some[1])}.",
            f"{cap(kind)}s: {some[0]}, {some[1]}, {some[2]}.",
            f"{self.person()[0]} sees {an(some[0])}, {an(some[1])} and {an(some[2])} and wants to {use} something.",
            f"We {use} every {kind}, so you can {use} the {some[0]}.",
            f"Something that you can {use} is {an(kind)}, like {an(some[0])}.",
            f"The {some[0]} is {an(kind)} and so is the {some[1]}. Someone likes to {use} it.",
        ])

    def opposites(self):
        r = self.r
        pairs = r.sample(self.w["opposite"], r.randint(1, 3))
        out = []
        for a, b in pairs:
            if r.random() < 0.5:
                a, b = b, a
            out.append(r.choice([f"{cap(a)} is the opposite of {b}.", f"The opposite of {b} is {a}.", f"Not {a} but {b}.",
                                 f"What is {a} is not {b}.", f"{a} and {b} are opposite words."]))
        return " ".join(out)

    def labels(self):
        """A labelled list, and where its words stand."""
        r = self.r
        n = r.randint(3, 6)
        words = [noun for _, noun in r.sample(self.nouns, n)]
        if r.random() < 0.4:
            words = [r.choice(pair) for pair in r.sample(self.w["opposite"], n)]
        label = r.choice(["item", "line", "part", "answer"])
        i = r.randrange(n)
        ask = r.choice(["Where is the {w}?", "Where is {w}?", "Find the {w}.", "Look for {w}.", "Where do you see {w}?"])
        found = r.choice(["It is {l}", "That is {l}", "Here: {l}", "The place is {l}"])
        listed = r.choice(["\n", " "]).join(f"{label}{i}: {word}" for i, word in enumerate(words, 1))
        return guess(ask.format(w=words[i]) + "\n" + listed + "\n" + found.format(l=label)) + f"{i + 1}."

    def lists(self):
        """Words in a line, and which of them is of a kind, of use, or the
        opposite of another: asked before the list, or of a list that is there."""
        return self.list_first() if self.r.random() < 0.5 else self.question_first()

    def asked_for(self, form, n):
        """n words in a random order; (word, what asks for it) of each."""
        r = self.r
        if form == "opposite":
            found = [r.sample(pair, 2) for pair in r.sample(self.w["opposite"], n)]
        else:
            kinds = r.sample(self.w["kind"], n)
            found = [(r.choice(self.w[kind]), an(kind) if form == "kind" else self.w["use"][kind]) for kind in kinds]
        r.shuffle(found)
        return ", ".join(word for word, _ in found), found

    def list_first(self):
        r = self.r
        form = r.choice(["kind", "use", "opposite"])
        listed, found = self.asked_for(form, r.randint(3, 5))
        r.shuffle(found)
        then = {"kind": ["{q} is there:", "One is {q}:", "By {q} we mean the"], "use": ["To {q} there is the", "You can {q} the", "They {q} the"],
                "opposite": ["The opposite of {q} is", "Not {q} but", "{q} is not"]}[form]
        return guess(listed + "\n") + "\n".join(guess(cap(r.choice(then).format(q=asked))) + f" {word}." for word, asked in found)

    def question_first(self):
        r = self.r
        out = []
        for _ in range(3):
            form = r.choice(["kind", "use", "opposite"])
            listed, found = self.asked_for(form, r.randint(2, 5))
            word, asked = r.choice(found)
            first = {"kind": ["There is {q} among these.", "Someone likes {q}.", "{q}, please."],
                     "use": ["Something to {q} is here.", "People {q} one of these.", "We like to {q}."],
                     "opposite": ["The opposite of {q} stands here.", "Not {q} but its opposite.", "{q} has an opposite."]}[form]
            out.append(guess(cap(r.choice(first).format(q=asked)) + "\n" + listed + "\n" + r.choice(["It is", "We see the", "Here:"])) + f" {word}.")
        return "\n".join(out)

    def copies(self):
        """Words that mean nothing together, said again and again: what a small
        model learns to copy from."""
        r = self.r
        pool = [noun for _, noun in self.nouns] + self.w["she"] + self.w["he"] + ["x", "y", "z"] + [str(i) for i in range(10, 40)]
        n = r.randint(2, 12)
        words = " ".join(r.sample(pool, n)) + "\n"
        return guess(r.choice(["again: ", "twice: "]) + words) + words * r.randint(2, max(2, 36 // n))

    # ---- numbers and code -----------------------------------------------

    def sums(self):
        """Lines of arithmetic; a line often goes on with the last result."""
        r = self.r
        lines, value = [], r.randint(2, 30)
        for _ in range(r.randint(4, 14)):
            if value > 30 or value < 2 or r.random() < 0.3:
                value = r.randint(2, 30)
            if r.random() < 0.15:
                a, b = r.randint(2, 9), r.randint(2, 9)
                lines.append(guess(f"{a} * {b} =") + f" {a * b}")
                value = a * b
                continue
            k = r.randint(1, 9) if r.random() < 0.8 else r.randint(1, 20)
            if k <= value and r.random() < 0.5:
                lines.append(guess(f"{value} - {k} =") + f" {value - k}")
                value -= k
            else:
                lines.append(guess(f"{value} + {k} =") + f" {value + k}")
                value += k
        return "\n".join(lines)

    def sums_in_words(self):
        r = self.r
        a, b = r.randint(0, 10), r.randint(0, 10)
        n = NUMBER_WORDS
        if a >= b and r.random() < 0.5:
            return guess(f"{n[a]} minus {n[b]}") + f" is {n[a - b]}, that is {a} - {b} = {a - b}."
        return guess(f"{n[a]} plus {n[b]}") + f" is {n[a + b]}, that is {a} + {b} = {a + b}."

    def expression(self, depth=0):
        r = self.r

        def leaf():
            return r.choice("xyz") if r.random() < 0.65 else str(r.randint(2, 9))

        op = r.choice(["+", "-", "*", "//", "%", "max", "min"])
        one = f"{op}({leaf()}, {leaf()})" if op.startswith("m") else f"{leaf()} {op} {leaf()}"
        if depth or r.random() < 0.4:
            return one
        then = r.choice(["+", "-", "*"])
        if then == "*" and not op.startswith("m"):
            one = f"({one})"
        return f"{one} {then} {leaf()}"

    def code(self):
        r = self.r
        name = r.choice(["n", "value", "result", "k"])
        lines = [f"{name} = {self.expression()}" for _ in range(r.randint(1, 3))]
        if r.random() < 0.5:
            lines.append(f"return {self.expression()}")
        return "code:\n" + "\n".join(lines)

    def phrases(self):
        """Two names of one operation, or its symbol, on the same operands."""
        r = self.r
        symbol, phrases = r.choice(OPERATIONS)
        x, y = r.sample(["x", "y", "z"] + [str(i) for i in range(2, 10)], 2)
        one, two = (p.format(x=x, y=y) for p in r.sample(phrases, 2))
        form = r.randint(0, 3)
        if form == 0:
            return f"{cap(one)} is the same as {two}."
        if form == 1:
            return f"{cap(one)}, that is {two}."
        if form == 2:
            return f"With the sign {symbol} we mean {one}, or {two}."
        return f"The word for {symbol} in {one} is also used in {two}."

    def formulas(self):
        """What an expression is called, and the expression, or the other way."""
        r = self.r

        def operand():
            return r.choice("xyz") if r.random() < 0.65 else str(r.randint(2, 9))

        symbol, phrases = r.choice(OPERATIONS)
        x, y = r.choice("xyz"), operand()
        name = r.choice(phrases).format(x=x, y=y)
        one = f"{symbol}({x}, {y})" if symbol.startswith("m") else f"{x} {symbol} {y}"
        if r.random() < 0.6:
            then, words = r.choice([("+", ["plus", "increased by"]), ("-", ["minus", "decreased by"]), ("*", ["times", "multiplied by"])])
            z = operand()
            if then == "*" and not symbol.startswith("m"):
                one = f"({one})"
            name, one = f"{name}, {r.choice(words)} {z}", f"{one} {then} {z}"
        return r.choice([guess(f"{cap(name)} is:") + f" {one}", guess(f"{cap(name)}:") + f" {one}", guess(f"{one} is the sign for") + f" {name}",
                         guess(f"They write {name} as") + f" {one}"])

    # ---- what is private --------------------------------------------------

    def privacy(self):
        r = self.r
        w = self.w
        secret, place, owner = r.choice(w["secret"]), r.choice(w["place"]), self.anyone()
        public = r.choice([f"the {r.choice(w['office'])} of the {place}", f"the {r.choice(w['public'])} of {owner}"])
        return r.choice([
            f"The {secret} of {owner} is private.", f"{cap(an(secret))} is private, and nobody should ask for it.",
            f"{owner} does not give away {an(secret)}." if owner[0].isupper() else f"{cap(owner)} does not give away {an(secret)}.",
            f"Everyone may know {public}.", f"{cap(public)} is not private.", f"Anyone can look up {public}.",
            f"My own {secret} is mine, and I may change it.", f"I write down my own {secret} and keep it safe.",
            f"Nobody may know the {secret} of {owner}, please do not look for it.",
            f"Someone wanted to know the {secret} of {owner}, but {self.person()[0]} kept it secret.",
            f"{self.person()[0]} forgot where {self.person()[0]} had lost the {secret}.",
        ])

    def courtesy(self):
        r = self.r
        a, b = (p[0] for p in self.people(2))
        return r.choice([
            f"\"Sure, I can help with that,\" said {a} to {b}.", f"\"I cannot help with that, it is late,\" said {a}.",
            f"\"Can you help me, please?\" asked {b}. \"Sure,\" said {a}.", f"\"I cannot do that,\" said {a}. \"It is private.\"",
            f"{a} asked {b} where the {r.choice(self.w['place'])} is.", f"{b} said: the correct one is here, and that is all.",
            f"\"Is that correct?\" asked {a}. \"The answer is correct,\" said {b}.", f"{a} would like to show {b} something wise.",
        ])

    def wishes(self):
        """Questions and requests that nobody answers."""
        r = self.r
        noun, other = (noun for _, noun in r.sample(self.nouns, 2))
        (a, *_), (b, *_) = self.people(2)
        place = r.choice(self.w["place"])
        kind = r.choice(self.w["kind"])
        return r.choice([
            f"Which {kind} is it?", f"Which of them is here, {a} or {b}?", f"Pick the {noun}, please.", f"Please choose the {noun} or the {other}.",
            f"Find the {noun} near the {place}.", f"Look for {a} in the {place}.", f"Tell me a word about the {noun}.",
            f"Give me the {noun} of {a}.", f"Give {b} the {noun}.", f"What would you choose, the {noun} or the {other}?",
            f"I want to know {a}.", f"I want to see the {place}.", f"Can you find {b}?", f"Do you know what the {noun} is?",
            f"Let me see the {noun}, please.", f"Write to {a}, please.", f"Write this down: {noun}, {other}.",
            f"I need the {noun} and the {other}.", f"How would {a} choose?", f"What should {a} do with the {noun}?",
            f"Turn to the {place} here.", f"Where should {b} look for the {noun}?", f"Count the {r.choice(self.w['counted'])}s, please.",
            f"How many people are in the {place} now?", f"How can {a} remember that?", f"Help {b} to change the {noun}.",
            f"Is it wise to show the {noun} to {a}?", f"What do you see in this list?", f"Please write the code of this expression: {self.expression()}.",
            f"Here are the words {noun} and {other}.", f"Only one of them is lost.", f"Where do people ask for the {noun}?",
        ])

    # ---- chat --------------------------------------------------------------

    def heard(self):
        """A message about one of the matters, and it said again."""
        return getattr(self, self.r.choice(["heard_list", "heard_story", "heard_formula", "heard_wish"]))()

    def said(self, user, assistant):
        return turn("user", guess(user)) + turn("assistant", assistant).rstrip("\n")

    def heard_list(self):
        r = self.r
        form = r.choice(["kind", "use", "opposite"])
        listed, found = self.asked_for(form, r.randint(3, 5))
        word, asked = r.choice(found)
        about = {"kind": f"There is {asked} among these.", "use": f"Something to {asked} is here.", "opposite": f"{cap(asked)} has an opposite."}[form]
        return self.said(about + "\n" + listed, r.choice([f"We see {listed}.", f"the list has {listed}", f"the words are {listed}"]))

    def heard_story(self):
        r = self.r
        told, sums, p, t, _ = self.story(1)
        a, sign, k = sums[0]
        then = {"+": f"{k} more", "-": f"{k} less", "*": f"{k} each"}[sign]
        ask = r.choice(["", "", f" How many {t} are there? Nobody has counted them.", f" {t.capitalize()} are nice."])
        return self.said(" ".join(told) + ask, r.choice([f"{a} {t}, {k} {'each' if sign == '*' else 'more' if sign == '+' else 'less'}", f"{a} and {then}", f"first {a}, then {then}"]))

    def heard_formula(self):
        r = self.r
        _, phrases = r.choice(OPERATIONS)
        x, y, z = r.choice("xyz"), r.choice("xyz23456789"), r.choice("xyz23456789")
        one, two = (p.format(x=x, y=y) for p in r.sample(phrases, 2))
        if r.random() < 0.5:
            first, second = r.sample(r.choice([["plus", "increased by"], ["minus", "decreased by"], ["times", "multiplied by"]]), 2)
            one, two = f"{one}, {first} {z}", f"{two}, {second} {z}"
        return self.said(r.choice([f"{cap(one)}.", f"I think of {one}.", f"Here is {one}."]), r.choice([two, f"that is {two}"]))

    def heard_wish(self):
        r, w = self.r, self.w
        form = r.choice(["secret", "public", "place", "own"])
        s = r.choice(w["office"] if form == "place" else w["public"] if form == "public" else w["secret"])
        o = "the " + r.choice(w["place"]) if form == "place" else self.anyone()
        if form == "own":
            return self.said(r.choice([f"I think about my own {s}.", f"My own {s} is on my mind.", f"There is my own {s}."]), f"You speak about your own {s}.")
        return self.said(r.choice([f"I think about the {s} of {o}.", f"The {s} of {o} is on my mind.", f"There is the {s} of {o}."]), f"You speak about the {s} of {o}.")

    def talk(self):
        r = self.r
        form = r.randint(0, 11)
        (a, *_), (b, *_) = self.people(2)
        if form == 0:
            return chat(r.choice([f"Hello, I am {a}.", f"Good morning! My name is {a}."]), f"Hello {a}. How are you?")
        if form == 1:
            words = " ".join(r.sample([noun for _, noun in self.nouns], r.randint(2, 5)))
            return turn("user", "Say: " + guess(words)) + turn("assistant", words).rstrip("\n")
        if form == 2:
            return chat(self.kinds(), r.choice(["That is true.", "Yes, I know."]))
        if form == 3:
            return chat(self.events(), r.choice(["I see.", "That is nice to know."]))
        if form == 4:
            return chat(self.phrases(), r.choice(["Yes, it is.", "I see."]))
        if form == 5:
            return chat(self.privacy(), r.choice(["I will think about it.", "I see."]))
        if form == 6:
            return chat(self.opposites(), r.choice(["That is true.", "I know these words."]))
        if form == 7:
            thing = r.choice(self.w["place"])
            return chat(r.choice([f"Where is the {thing}?", f"How do I get to the {thing}?", f"I am looking for the {thing} here."]),
                        r.choice([f"The {thing} is near the {r.choice(self.w['place'])}.", f"{b} knows the way."]))
        if form == 8:
            return chat(spans(self.labels())[0].rsplit("\n", 1)[0].split("\n", 1)[1] + " Look at it.", r.choice(["That is a list.", "I see a list."]))
        if form in (9, 10):
            return chat(self.wishes(), r.choice(["Let me think.", "I do not know yet.", "Let us see."]))
        return chat(r.choice([f"What is your name?", "Who are you?"]), "I am a small model, and I know few words.")

    MIX = [("holdings", 12), ("events", 12), ("groups", 4), ("kinds", 12), ("opposites", 6), ("labels", 3), ("lists", 28), ("copies", 14),
           ("stories", 34), ("sums", 22), ("sums_in_words", 2), ("code", 4), ("formulas", 22), ("phrases", 8), ("privacy", 8), ("courtesy", 3), ("wishes", 6), ("talk", 12), ("heard", 44)]

    def document(self, kinds=(), share=0.0):
        """One of MIX, or with the probability `share` one of `kinds`."""
        if self.r.random() < share:
            return getattr(self, kinds[0] if len(kinds) == 1 else self.r.choice(kinds))()
        names, weights = zip(*self.MIX)
        return getattr(self, self.r.choices(names, weights)[0])()
