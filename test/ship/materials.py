#!/usr/bin/env python3
"""Prints the bill of materials of ipamd and eni-cni as CycloneDX 1.5: every crate that is linked into them, with version, licence and hash.

  materials.py TARGET     from `cargo metadata` and Cargo.lock, without the network; the same sources give the same text
"""
import json, pathlib, subprocess, sys, tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    command = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", sys.argv[1]]
    metadata = json.loads(subprocess.check_output(command, cwd=ROOT))
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    linked, waiting = set(), [id for id, package in packages.items() if package["name"] in ("ipamd", "eni-cni")]
    while waiting:
        if (id := waiting.pop()) not in linked:
            linked.add(id)
            waiting += [dep["pkg"] for dep in nodes[id]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}
    components = []
    for package in sorted((packages[id] for id in linked), key=lambda package: (package["name"], package["version"])):
        name, version = package["name"], package["version"]
        component = {"type": "library", "name": name, "version": version, "purl": f"pkg:cargo/{name}@{version}"}
        if package["license"]:
            component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if checksums.get((name, version)):
            component["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
        components.append(component)
    product = {"type": "application", "name": "eni-cni", "version": next(p["version"] for p in packages.values() if p["name"] == "ipamd")}
    print(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"component": product}, "components": components}, indent=1))


if __name__ == "__main__":
    main()
