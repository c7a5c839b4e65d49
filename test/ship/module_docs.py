#!/usr/bin/env python3
"""Writes the tables of inputs and outputs into the README of each Terraform module, or checks that they are right.

  module_docs.py [--write] FOLDER...     every variable needs a description, a type and a use; every output a description
"""
import pathlib, re, sys

BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.S | re.M)
START, END = "<!-- inputs and outputs: made by `make terraform WRITE=1` -->\n", "<!-- end of inputs and outputs -->"


def attribute(body, name):
    """An attribute's text as it is written, in one line; nothing when it is not there."""
    found = re.search(rf"^  {name}\s+= (.*?)(?=^  \w|\Z)", body, re.S | re.M)
    return found and " ".join(found[1].split())


def tables(folder, mistakes):
    code = "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    inputs, outputs = ["| input | meaning | type | default |", "|---|---|---|---|"], ["", "| output | meaning |", "|---|---|"]
    for kind, name, body in sorted(BLOCK.findall(code)):
        description = attribute(body, "description")
        if not description:
            mistakes.append(f"{folder}: {kind} {name} has no description")
            continue
        description = description.strip('"').replace('\\"', '"').replace("|", "\\|")
        if kind == "output":
            outputs.append(f"| `{name}` | {description} |")
            continue
        form, default = attribute(body, "type"), attribute(body, "default")
        if not form:
            mistakes.append(f"{folder}: variable {name} has no type")
        if f"var.{name}" not in BLOCK.sub("", code):
            mistakes.append(f"{folder}: variable {name} is not used")
        inputs.append(f"| `{name}` | {description} | `{form}` | {f'`{default}`' if default else 'required'} |")
    return "\n".join(inputs + outputs) + "\n"


def main():
    write = sys.argv[1] == "--write"
    mistakes = []
    for folder in map(pathlib.Path, sys.argv[1 + write :]):
        readme = folder / "README.md"
        text = readme.read_text()
        new = text[: text.index(START)] + START + tables(folder, mistakes) + text[text.index(END) :]
        if write:
            readme.write_text(new)
        elif new != text:
            mistakes.append(f"{readme} is out of date: make terraform WRITE=1")
    sys.exit("\n".join(mistakes) or None)


if __name__ == "__main__":
    main()
