#!/usr/bin/env python3
"""Reads the schema of Terraform's AWS provider out of the npm package @cdktn/provider-aws, which is generated from it.

  provider_schema.py PACKAGE.tgz OUT.json aws_vpc data.aws_region ...     the provider's own configuration is always included

For every resource the package has a class whose method synthesizeHclAttributes() lists what can be set, with its form, and a
comment line for each attribute: `// cidr_block - computed: true, optional: true, required: false`.
"""
import json, re, sys, tarfile

COMMENT = re.compile(r"// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)")
ENTRY = re.compile(r'^ +(\w+): \{\n +value: (.+),\n +isBlock: (?:true|false),\n +type: "(\w+)",\n', re.M)
SIMPLE = {"string": "string", "number": "number", "boolean": "bool", "any": "dynamic"}
GETTERS = {
    "String": "string", "Number": "number", "Boolean": "bool", "List": ["list", "string"], "NumberList": ["list", "number"],
    "StringMap": ["map", "string"], "NumberMap": ["map", "number"], "BooleanMap": ["map", "bool"], "AnyMap": ["map", "dynamic"],
}


class Source:
    """The JavaScript of one resource: its struct mappers and classes by name, and its main class."""

    def __init__(self, text):
        self.structs = {m[1].lower(): m[2] for m in re.finditer(r"^function (\w+)ToHclTerraform\(struct\) \{(.*?)^\}", text, re.S | re.M)}
        self.classes = {m[1].lower(): m[2] for m in re.finditer(r"^class (\w+) extends \w+\.\w+ \{(.*?)^\}", text, re.S | re.M)}
        self.main = re.search(r"^class \w+ extends \w+\.Terraform(?:Resource|DataSource|Provider) \{(.*?)^\}", text, re.S | re.M)[1]
        self.settable = re.search(r"synthesizeHclAttributes\(\) \{(.*?)^    \}", self.main, re.S | re.M)[1]
        self.version = re.search(r"providerVersion: '([0-9.]+)'", text)[1]

    def object_type(self, name):
        body = self.classes.get(name.lower() + "outputreference", "")
        return ["object", {m[1]: self.computed_type(body, m[1]) for m in COMMENT.finditer(body)}]

    def computed_type(self, body, name):
        """Type of an attribute that cannot be set, from the way it is read."""
        quoted = rf"['\"]{re.escape(name)}['\"]"
        if found := re.search(rf"^.*this\.get(\w+)Attribute\({quoted}\)", body, re.M):
            kind = GETTERS.get(found[1], "dynamic")
            return ["set", kind[1]] if isinstance(kind, list) and "tolist" in found[0] else kind
        if found := re.search(rf"new \w+\.(String|Number|Boolean|Any)Map\(this, {quoted}", body):
            return GETTERS[found[1] + "Map"]
        if found := re.search(rf"new (\w+?)(List|Map|OutputReference)\(this, {quoted}(?:, (true|false))?", body):
            outer = "map" if found[2] == "Map" else "set" if found[2] == "List" and found[3] == "true" else "list"
            return [outer, self.object_type(found[1])]
        return "dynamic"

    def block(self, entries, comments):
        flags = {m[1]: {k: True for k, v in zip(("computed", "optional", "required"), m.groups()[1:]) if v == "true"} for m in COMMENT.finditer(comments)}
        attributes, blocks = {}, {}
        for name, value, kind in ENTRY.findall(entries):
            flag = flags.get(name, {"computed": True, "optional": True})
            simple = simple_type(value, kind)
            mapper = re.search(r"(?:\.(listMapperHcl|hashMapperHcl)\()?(\w+)ToHclTerraform(?:, (true|false)\))?", value)
            if simple or mapper[2].lower() not in self.structs:
                attributes[name] = {"type": simple or "dynamic", **flag}
                continue
            inner = self.block(self.structs[mapper[2].lower()], self.classes.get(mapper[2].lower() + "outputreference", ""))
            if flag.get("computed") or (mapper[1] == "listMapperHcl" and mapper[3] == "false"):
                attributes[name] = {"type": [kind if kind in ("list", "set") else "list", as_object(inner)], **flag}
            else:
                blocks[name] = {"nesting_mode": {"struct": "single"}.get(kind, kind), "block": inner}
                if kind in ("list", "set"):
                    blocks[name] |= ({} if mapper[1] else {"max_items": 1}) | ({"min_items": 1} if flag.get("required") else {})
        for name, flag in flags.items():
            if name not in attributes and name not in blocks:
                attributes[name] = {"type": self.computed_type(comments, name), **(flag or {"computed": True})}
        return {"attributes": attributes, "block_types": blocks}


def simple_type(value, kind):
    """Type of `cdktn.stringToHclTerraform(x)`, also within list and map mappers; nothing for a block."""
    names = re.findall(r"\w+\.(listMapperHcl|hashMapperHcl|stringToHcl|numberToHcl|booleanToHcl|anyToHcl)", value)
    if not names or names[-1].endswith("Hcl") and names[-1].startswith(("list", "hash")):
        return None
    result = SIMPLE[names[-1].removesuffix("ToHcl")]
    for depth, name in enumerate(reversed(names[:-1])):
        outermost = depth == len(names) - 2
        result = ["map" if name == "hashMapperHcl" else kind if outermost and kind in ("list", "set") else "list", result]
    return result


def as_object(block):
    fields = {name: attribute["type"] for name, attribute in block["attributes"].items()}
    for name, nested in block["block_types"].items():
        fields[name] = [nested["nesting_mode"] if nested["nesting_mode"] in ("list", "set") else "list", as_object(nested["block"])]
    return ["object", fields]


def folder_of(name):
    if name == "provider":
        return name
    kind, _, bare = name.rpartition("aws_")
    return ("data-aws-" if kind == "data." else "") + bare.replace("_", "-")


def main():
    package, out, *names = sys.argv[1:]
    wanted = {f"package/lib/{folder_of(name)}/": name for name in [*names, "provider"]}
    texts = {}
    with tarfile.open(package) as archive:
        for member in archive:
            name = wanted.get(member.name[: member.name.rfind("/") + 1])
            if name and member.name.endswith(".js"):
                texts[name] = texts.get(name, "") + "\n" + archive.extractfile(member).read().decode()
    if missing := set(wanted.values()) - set(texts):
        sys.exit(f"not in the package: {sorted(missing)}")
    result = {"resource_schemas": {}, "data_source_schemas": {}}
    for name, text in texts.items():
        source = Source(text)
        schema = {"version": 0, "block": source.block(source.settable, source.main)}
        result["provider_version"] = source.version
        if name == "provider":
            schema["block"]["attributes"].pop("alias", None)
            result["provider"] = schema
        elif name.startswith("data."):
            result["data_source_schemas"][name.removeprefix("data.")] = schema
        else:
            result["resource_schemas"][name] = schema
    with open(out, "w") as file:
        json.dump(result, file, indent=1, sort_keys=True)
    print(f"aws {result['provider_version']}: {len(texts) - 1} resources and data sources")


if __name__ == "__main__":
    main()
