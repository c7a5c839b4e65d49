#!/usr/bin/env python3
"""Checks charts/eni-cni offline: lint, schema, rendering for each Kubernetes version, golden files, refusals, README.

  chart.py [--write] [--ipamd PROGRAM]   --write: renews the golden files and the README's table
                                         --ipamd: the schema has to have its settings
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
# Settings that are decided by the chart's mounts and fields.
DECIDED = {"HOST_CNI_BIN_PATH", "HOST_CNI_CONFDIR_PATH", "CRI_SOCKET", "MY_NODE_NAME", "IPAMD_SERVICE_ACCOUNT_DIR"}
DECIDED |= {"IPAMD_CONFIG", "IPAMD_SOCKET", "IPAMD_DATABASE", "IPAMD_RELEASED_DIR", "AWS_VPC_K8S_CNI_BACKING_STORE"}
BOUNDS = ["minimum", "maximum"]
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
        if version == VERSIONS[0]:
            check_rights(case, values, objects)
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


def check_settings(reference, write):
    """The schema has the daemon's settings, all but those that the chart itself decides, with the same bounds."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    known = schema["properties"]["env"]["properties"]
    wanted = {setting["name"]: setting for setting in reference["settings"] if setting["name"] not in DECIDED}
    for name in known.keys() - wanted.keys():
        failures.append(f"values.schema.json describes env.{name}, which is no setting of ipamd, or one that the chart decides")
    for name, setting in wanted.items():
        entry = known.setdefault(name, described(setting))
        if write:
            entry |= {bound: setting["schema"][bound] for bound in BOUNDS if bound in setting["schema"]}
    text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if write:
        path.write_text(text)
        return
    for name, setting in wanted.items():
        if [known[name].get(bound) for bound in BOUNDS] != [setting["schema"].get(bound) for bound in BOUNDS]:
            failures.append(f"env.{name} has other bounds in values.schema.json than ipamd; `make charts WRITE=1` takes them over")
    if text != path.read_text():
        failures.append("values.schema.json lacks settings of ipamd; `make charts WRITE=1` adds them")


def described(setting):
    """How the schema has a setting: Helm gives numbers and switches as texts too."""
    default = f"; default {setting['default']}" if setting["default"] else ""
    entry = {"description": f"{setting['meaning'][0].upper()}{setting['meaning'][1:]} ({setting['accepts']}{default})."}
    entry |= setting["schema"]
    if entry["type"] == "integer":
        entry |= {"type": ["integer", "string"], "pattern": "^[0-9]+$"}
    return entry


def check_rights(case, values, objects):
    """Who has to read pods may, and nobody else."""
    settings = values.get("env", {})
    is_on = lambda name: str(settings.get(name, "")).lower() == "true"
    wanted = {"get"} if is_on("ENABLE_POD_ENI") or is_on("ANNOTATE_POD_IP") else set()
    wanted |= {"patch"} if is_on("ANNOTATE_POD_IP") else set()
    rules = next(thing["rules"] for thing in objects if thing["kind"] == "ClusterRole")
    granted = {verb for rule in rules if "pods" in rule.get("resources", []) for verb in rule["verbs"]}
    if granted != wanted:
        failures.append(f"{case}: the settings need {sorted(wanted)} on pods, the ClusterRole grants {sorted(granted)}")


def check_carried(chart, ipamd, schemas):
    """What `ipamd config check --values` carries over of the AWS chart's values is taken by this chart."""
    file = ROOT / "ipamd/src/settings/values/aws-vpc-cni.yaml"
    said = subprocess.check_output([ipamd, "config", "check", "--values", file, "--output", "json"], text=True)
    values = json.loads(said)["values"]
    files = render(chart, values, VERSIONS[-1])
    objects = [o for name, text in files.items() if name.endswith(".yaml") for o in yaml.safe_load_all(text) if o]
    if not {"DaemonSet", "ENIConfig", "PodMonitor"} <= {thing["kind"] for thing in objects}:
        failures.append("carried over: objects are missing")
    check_objects("carried over", VERSIONS[-1], objects, schemas)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--ipamd")
    arguments = arguments.parse_args()
    cases = {"defaults": {}} | {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*.yaml"))}
    if arguments.ipamd:
        check_settings(json.loads(subprocess.check_output([arguments.ipamd, "config", "reference", "--output", "json"])), arguments.write)
    with helm.Chart.load(str(CHART)) as chart:
        schemas = own_schemas(chart)
        count = sum(check_case(chart, case, values, schemas, arguments.write) for case, values in cases.items())
        refused = check_refusals(chart)
        check_readme(chart, arguments.write)
        if arguments.ipamd:
            check_carried(chart, arguments.ipamd, schemas)
    with tempfile.TemporaryDirectory() as folder:
        package = pathlib.Path(helm.package(str(CHART), destination=folder))
        print(f"{package.name}: {package.stat().st_size} bytes")
    print(f"{len(cases)} value sets for Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}: {count} objects; {refused} wrong value sets refused")
    for failure in failures:
        print("FAIL", failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
