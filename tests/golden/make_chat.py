#!/usr/bin/env python3
"""Writes tests/golden/chat_templates.json: what transformers' Jinja prints for
the templates of tests/text/templates/.

usage: python3 tests/golden/make_chat.py   (in the environment of tests/oracle)

feature templates (any name) are rendered with VALUES, model_* templates with
every chat of CHATS, as apply_chat_template would; ERRORS are templates that
must fail, with the line that jinja2 names. The clock stands still at NOW.
"""
import datetime
import json
import pathlib
import sys

import jinja2
import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).resolve().parent
TEMPLATES = HERE.parent / "text" / "templates"
NOW = 1735732800  # 2025-01-01 12:00 UTC

VALUES = {
    "messages": [{"role": "system", "content": " Be brief. "},
                 {"role": "user", "content": "Hi\n"},
                 {"role": "assistant", "content": "yes <b>"}],
    "tools": None, "documents": None, "add_generation_prompt": True,
    "bos_token": "<s>", "eos_token": "</s>", "n": 3, "f": 2.5, "big": 1e20,
    "zero": 0, "neg": -7,
    "d": {"a": 1, "B": "x", "items": [1, 2], "z": None,
          "list": [True, None, 1.5, "q'"],
          "nested": {"k": {"deep": [1, {"x": 2}]}}},
    "words": ["b", "A", "c", "a"], "nums": [3, 1, 2.5, 10],
    "s": "Hello, World",
    "uni": "Stra\u00dfe \u0391\u03a3 \ufb01 \u00e9\U0001f600\u200b\u00a0",
    "empty": "", "nothing": None, "yes": True, "no": False,
    "html": "<a href='x'>&\"</a>", "lines": "a\nb\n\n  c\r\nd",
    "users": [{"name": "Bob", "age": 30, "on": True},
              {"name": "al", "age": 25, "on": False},
              {"name": "Cy", "age": 30}],
}

TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city.\nNow.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name \u2014 \"quoted\""},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer"}},
        "where": {"type": "object", "properties": {"x": {"type": "number"}}}}}}}
CALL = {"id": "abc123def", "type": "function", "function": {
    "name": "get_weather", "arguments": {"city": "K\u00f6ln", "n": 1.5}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


CHATS = {
    "ask": {"messages": [user(" What is 2+2? \n")], "prompt": True},
    "turns": {"messages": [
        {"role": "system", "content": "Be brief.\n"}, user("Hi <b>\u00e9"),
        assistant("Hello! "), user("{{ x }}")], "prompt": True},
    "no_prompt": {"messages": [user("a"), assistant("b")]},
    "tools": {"messages": [
        {"role": "system", "content": "Use tools."}, user("Weather?"),
        assistant(None, tool_calls=[CALL]),
        {"role": "tool", "content": "{\"t\": 20}", "name": "get_weather",
         "tool_call_id": "abc123def"}, assistant("20 degrees."),
        user("And tomorrow?")], "tools": [TOOL, TOOL["function"] | {
            "function": TOOL["function"]}], "prompt": True},
    "two_calls": {"messages": [user("Weather?"), assistant(
        "", tool_calls=[CALL, CALL | {"id": "short"}])], "tools": [TOOL]},
    "parts": {"messages": [{"role": "user", "content": [
        {"type": "text", "text": " Look: "}, {"type": "image"},
        {"type": "text", "text": "what?"}]}], "prompt": True},
    "order": {"messages": [assistant("I begin"), user("no")]},
    "roles": {"messages": [user("a"), {"role": "critic", "content": "b"}]},
    "thinking": {"messages": [
        user("Why?"), assistant("<think>\nhm\n</think>\n\nBecause."),
        user("Sure?"), assistant("Yes.", reasoning_content="\nI checked\n")],
        "variables": {"enable_thinking": False}, "prompt": False},
    "no_thinking": {"messages": [user("Why?")], "prompt": True, "variables": {
        "enable_thinking": False, "date_string": "2 Feb 2026"}},
    "documents": {"messages": [user("Where?")], "prompt": True, "documents": [
        {"title": "One", "text": "a\nb"}, {"title": "Two", "n": 1.0}],
        "variables": {"citation_mode": "fast"}},
    "continue": {"messages": [user("Count"), assistant("One, two, ")],
                 "continue": True},
    "continue_trimmed": {"messages": [user("Count"), assistant(
        [{"type": "text", "text": "One "}, {"type": "image"}])],
        "continue": True},
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}

ERRORS = json.loads((HERE.parent / "text" / "errors.json").read_text())


class Clock(datetime.datetime):
    """datetime whose now is NOW, in UTC."""

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc
                                               ).replace(tzinfo=None)


def line_of(error):
    """The template's line: of the syntax, or of the frame that failed."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line, frame = None, error.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == "<template>":
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def outcome(render):
    try:
        return {"text": render()}
    except Exception as error:  # whatever a template makes Python raise
        return {"error": f"{type(error).__name__}: {error}",
                "line": line_of(error)}


def render_chat(source, chat):
    """apply_chat_template(tokenize=False) behind the choice of a template."""
    from transformers.tokenization_utils_base import _normalize_chat_messages
    return chat_template_utils.render_jinja_template(
        conversations=[_normalize_chat_messages(chat["messages"])],
        tools=chat.get("tools"), documents=chat.get("documents"),
        chat_template=source, add_generation_prompt=chat.get("prompt", False),
        continue_final_message=chat.get("continue", False),
        **{**NAMES, **chat.get("variables", {})})[0][0]


def main():
    chat_template_utils.datetime = Clock
    compile_template = chat_template_utils._cached_compile_jinja_template
    golden = {"now": NOW, "values": VALUES, "names": NAMES, "chats": CHATS,
              "features": {}, "models": {}, "errors": []}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        source = path.read_bytes().decode()
        if path.stem.startswith("model_"):
            golden["models"][path.stem] = {
                name: outcome(lambda: render_chat(source, chat))
                for name, chat in CHATS.items()}
        else:
            golden["features"][path.stem] = compile_template(source).render(
                **VALUES)
    for source in ERRORS:
        result = outcome(lambda: compile_template(source).render(**VALUES))
        assert "error" in result, source
        golden["errors"].append({"template": source, **result})
    target = HERE / "chat_templates.json"
    target.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n",
                      encoding="utf-8")
    print(f"{target.name}: make_chat.py, jinja2 {jinja2.__version__}, "
          f"transformers {transformers.__version__}, Python "
          f"{sys.version_info.major}.{sys.version_info.minor}")


if __name__ == "__main__":
    main()
