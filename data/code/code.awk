# code.awk - a described calculation becomes an expression over x, y, z:
# integers, + - * // %, max, min. An answer is judged by its values.

BEGIN {
    begin("code")
    templates["train", "+"] = "the sum of {x} and {y}|{x} plus {y}"
    templates["train", "-"] = "the difference of {x} and {y}|{x} minus {y}"
    templates["train", "*"] = "the product of {x} and {y}|{x} times {y}"
    templates["train", "//"] = "{x} divided by {y}|the quotient of {x} and {y}"
    templates["train", "%"] = "the remainder of {x} divided by {y}|{x} modulo {y}"
    templates["train", "max"] = "the larger of {x} and {y}|the maximum of {x} and {y}"
    templates["train", "min"] = "the smaller of {x} and {y}|the minimum of {x} and {y}"
    templates["train", "then+"] = "{e}, plus {z}"
    templates["train", "then-"] = "{e}, minus {z}"
    templates["train", "then*"] = "{e}, times {z}"
    templates["train", "ask"] = "Write code for {e}.|Give an expression for {e}.|Please write {e} as code.|What is the code for {e}?"
    templates["test", "+"] = "the total of {x} and {y}|{x} increased by {y}"
    templates["test", "-"] = "{x} decreased by {y}|{x} less {y}"
    templates["test", "*"] = "{x} multiplied by {y}"
    templates["test", "//"] = "the whole part of {x} over {y}"
    templates["test", "%"] = "what remains of {x} over {y}"
    templates["test", "max"] = "the greater of {x} and {y}"
    templates["test", "min"] = "the lesser of {x} and {y}"
    templates["test", "then+"] = "{e}, increased by {z}"
    templates["test", "then-"] = "{e}, decreased by {z}"
    templates["test", "then*"] = "{e}, multiplied by {z}"
    templates["test", "ask"] = "How would you compute {e}?|I need an expression that gives {e}.|Turn this into code: {e}."
    while (made < n)
        request()
    exit
}

function value_of(name) {
    return name ~ /^[0-9]/ ? name + 0 : input[name]
}

function apply(op, p, q) {
    if (op == "+") return p + q
    if (op == "-") return p - q
    if (op == "*") return p * q
    if (op == "//") return int(p / q)
    if (op == "%") return p % q
    if (op == "max") return p > q ? p : q
    return p < q ? p : q
}

# Six inputs with the value of the calculation, large and small, x < y in half
# of them. `weak` when some variable or constant alone has all these values.
function tests(    i, high, v, list, same) {
    same["x"] = same["y"] = same["z"] = same["constant"] = 0
    for (i = 0; i < 6; i++) {
        high = i < 3 ? 30 : 8
        input["x"] = between(2, high - 1)
        do
            input["y"] = between(1, high)
        while ((i % 2) != (input["x"] < input["y"]))
        input["z"] = between(2, high)
        v = apply(op, value_of(x), value_of(y))
        if (then != "")
            v = apply(then, v, value_of(z))
        same["x"] += v == input["x"]
        same["y"] += v == input["y"]
        same["z"] += v == input["z"]
        if (i == 0)
            first = v
        same["constant"] += v == first
        list = list (i ? "; " : "") "x=" input["x"] " y=" input["y"] " z=" input["z"] ": " v
    }
    weak = same["x"] == 6 || same["y"] == 6 || same["z"] == 6 || same["constant"] == 6
    return list
}

function operand() {
    return chance(3) ? one_of("x|y|z") : between(2, 9)
}

function request(    e, code, list) {
    op = one_of("+|-|*|//|%|max|min")
    do {
        x = one_of("x|y|z")
        y = operand()
    } while (x == y)
    then = one_of("+|-|*||")
    e = fill(fill(template(op), "x", x), "y", y)
    code = op ~ /^m/ ? op "(" x ", " y ")" : x " " op " " y
    if (then != "") {
        z = operand()
        e = fill(fill(template("then" then), "e", e), "z", z)
        code = (then == "*" && op !~ /^m/ ? "(" code ")" : code) " " then " " z
    }
    list = tests()
    if (!weak)
        emit(fill(template("ask"), "e", e), code, "\"tests\": \"" list "\"")
}
