#!/usr/bin/env python3
"""Checks charts/eni-cni offline: lint, schema, rendering for each Kubernetes version, golden files, refusals, README.

  chart.py [--write] [--ipamd PROGRAM]   --write: renews the golden files and the README's table
                                         --ipamd: the schema's settings have to be in its help
"""
import argparse, copy, json, pathlib, subprocess, sys, tempfile

import helm_python as helm
import jsonschema
import kubernetes_validate
import yaml
from helm_python import _native

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/eni-cni"
GOLDEN = ROOT / "test/ship/golden"
VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"]
# Objects of the Prometheus operator: Kubernetes has no schema of them.
FOREIGN = {"PodMonitor", "PrometheusRule"}
failures = []


def render(chart, values, version):
    """Chart.render of the library cannot be told the Kubernetes version; what it calls can."""
    options = {"name": "eni-cni", "namespace": "kube-system", "kube_version": f"v{version}.0", "is_install": True}
    return json.loads(_native.call_string("helm_render", chart._raw(), json.dumps(values), json.dumps(options)))


def strict(node):
    """Turns a CRD's schema into one that refuses unknown fields."""
    if isinstance(node, dict):
        if "properties" in node:
            node.setdefault("additionalProperties", bool(node.get("x-kubernetes-preserve-unknown-fields")))
        for child in node.values():
            strict(child)
    return node


def own_schemas(chart):
    schemas = {}
    for file in chart.crds:
        for crd in yaml.safe_load_all(file["data"]):
            for version in crd["spec"]["versions"]:
                schema = strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
                schemas[f'{crd["spec"]["group"]}/{version["name"]}', crd["spec"]["names"]["kind"]] = schema
    return schemas


def check_objects(case, version, objects, schemas):
    seen = set()
    for thing in objects:
        key = thing["apiVersion"], thing["kind"], thing["metadata"]["name"]
        if key in seen:
            failures.append(f"{case} {version}: {key} is there twice")
        seen.add(key)
        try:
            if key[:2] in schemas:
                jsonschema.validate(thing, schemas[key[:2]])
            elif key[1] not in FOREIGN:
                kubernetes_validate.validate(thing, version, strict=True)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            failures.append(f"{case} {version}: {key[1]}/{key[2]} {list(error.path)}: {error.message[:300]}")
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            failures.append(f"{case} {version}: {key[1]}: {error}")


def shortened(thing):
    """Without what is a file of the chart as it is, and has tests of its own."""
    parts = {"ConfigMap": "data", "PrometheusRule": "spec"}
    part = parts.get(thing["kind"])
    assert part is None or thing[part], f"{thing['kind']} is empty"
    return thing | ({part: "a file of the chart"} if part else {})


def check_case(chart, case, values, schemas, write):
    for message in helm.lint(str(CHART), values, strict=True)["messages"]:
        if message["severity"] >= 2:
            failures.append(f"{case}: lint: {message['path']}: {message['error'].strip()}")
    count, texts = 0, {}
    for version in VERSIONS:
        files = render(chart, values, version)
        objects = [o for name, text in sorted(files.items()) if name.endswith(".yaml") for o in yaml.safe_load_all(text) if o]
        objects += [crd for file in chart.crds for crd in yaml.safe_load_all(file["data"])]
        check_objects(case, version, objects, schemas)
        count += len(objects)
        texts["".join("---\n" + yaml.safe_dump(shortened(o), sort_keys=False, width=120) for o in objects if o["kind"] != "CustomResourceDefinition")] = version
    if len(texts) != 1:
        failures.append(f"{case}: the versions {list(texts.values())} differ; they need golden files of their own")
    golden(GOLDEN / f"{case}.yaml", next(iter(texts)), write)
    return count


def golden(path, text, write):
    if write:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        failures.append(f"{path.relative_to(ROOT)} is not what the chart gives; look at `git diff` after `make charts WRITE=1`")


def check_refusals(chart):
    """Every wrong value is refused with a text that names it."""
    cases = yaml.safe_load((ROOT / "test/ship/wrong-values.yaml").read_text())
    for case in cases:
        try:
            render(chart, case["values"], VERSIONS[-1])
            failures.append(f"accepted: {case['values']}")
        except helm.HelmError as error:
            if case["says"] not in str(error):
                failures.append(f"{case['values']} is refused with {error!s}, without: {case['says']}")
    return len(cases)


def rows(schema, defaults, prefix=""):
    for name, entry in schema["properties"].items():
        default = defaults.get(name) if isinstance(defaults, dict) else None
        if entry.get("properties") and name != "annotations":
            yield from rows(entry, default, f"{prefix}{name}.")
        else:
            shown = "" if default is None else f"`{json.dumps(default)}`"
            shown = shown if len(shown) <= 60 else "see values.yaml"
            yield f"| `{prefix}{name}` | {entry.get('description', '')} | {shown} |"


def check_readme(chart, write):
    path = CHART / "README.md"
    text = path.read_text()
    start, end = "<!-- values: made by `make charts WRITE=1` -->\n", "<!-- end of values -->"
    schema = json.loads((CHART / "values.schema.json").read_text())
    table = "\n".join(["| value | meaning | default |", "|---|---|---|", *rows(schema, yaml.safe_load((CHART / "values.yaml").read_text()))])
    new = text[: text.index(start)] + start + table + "\n" + text[text.index(end):]
    golden(path, new, write)


def check_settings(help_text):
    """The settings that the schema describes are settings of the daemon."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    for name in schema["properties"]["env"]["properties"]:
        if f"  {name} " not in help_text:
            failures.append(f"values.schema.json describes env.{name}, which `ipamd serve --help` does not know")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--ipamd")
    arguments = arguments.parse_args()
    cases = {"defaults": {}} | {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}
    with helm.Chart.load(str(CHART)) as chart:
        schemas = own_schemas(chart)
        count = sum(check_case(chart, case, values, schemas, arguments.write) for case, values in cases.items())
        refused = check_refusals(chart)
        check_readme(chart, arguments.write)
    if arguments.ipamd:
        check_settings(subprocess.check_output([arguments.ipamd, "serve", "--help"], text=True))
    with tempfile.TemporaryDirectory() as folder:
        package = pathlib.Path(helm.package(str(CHART), destination=folder))
        print(f"{package.name}: {package.stat().st_size} bytes")
    print(f"{len(cases)} value sets for Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}: {count} objects; {refused} wrong value sets refused")
    for failure in failures:
        print("FAIL", failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
