#!/usr/bin/env python3
"""Runs the programs for arm64 under qemu-user and holds what they say against what those for x86-64 say.

  emulated.py AMD64 ARM64     folders with ipamd and eni-cni, or with one of them: then nothing is asked beside the daemon

What needs a kernel of its own cannot run there. The daemon can, up to the point where it waits for the metadata service: with its database, its socket
and its answers to the plugin. It gets a folder of its own, opens no port, and the metadata service is a port of loopback that nobody has.
"""
import difflib, json, pathlib, re, signal, subprocess, sys, tempfile, time

# Of a wait for the daemon, in seconds: an emulated one on a busy machine takes its time.
PATIENCE = 300
VARIES = re.compile(r"\b\d+(\.\d+)? ?(ms|s)\b|\d{4}-\d\d-\d\dT[\d:.]+Z")
REQUEST = {"cniVersion": "1.1.0", "name": "pods", "type": "eni-cni"}
# What is asked without a daemon: program, arguments, standard input, variables.
ALONE = [
    ("ipamd", ["--version"], "", {}),
    ("ipamd", ["--help"], "", {}),
    ("ipamd", ["config", "check"], "", {}),
    ("ipamd", ["config", "check"], "", {"WARM_IP_TARGET": "many"}),
    ("ipamd", ["config", "check", "--output", "json"], "", {"WARM_IP_TARGET": "8"}),
    ("ipamd", ["config", "reference"], "", {}),
    ("ipamd", ["completions", "bash"], "", {}),
    ("ipamd", ["history"], "", {}),
    ("ipamd", ["status"], "", {}),
    ("ipamd", ["no-such-command"], "", {}),
    ("eni-cni", [], json.dumps(REQUEST), {"CNI_COMMAND": "VERSION"}),
    ("eni-cni", [], json.dumps(REQUEST), {"CNI_COMMAND": "STATUS"}),
    ("eni-cni", [], '{"cniVersion', {"CNI_COMMAND": "ADD"}),
    ("eni-cni", [], "", {}),
]
# What is asked beside it.
BESIDE = [
    ("ipamd", ["status", "--output", "json"], "", {}),
    ("ipamd", ["pods"], "", {}),
    ("ipamd", ["history"], "", {}),
    ("ipamd", ["log-level", "debug"], "", {}),
    ("eni-cni", [], json.dumps(REQUEST), {"CNI_COMMAND": "STATUS"}),
]


class Machine:
    """The programs for one architecture, in a folder where nothing has run so far; by the same name for all."""

    def __init__(self, emulator, programs, folder):
        self.emulator, self.programs, self.folder = emulator, programs, folder

    def line(self, program, arguments):
        return self.emulator + [str(self.programs / program), *arguments]

    def environment(self, more):
        own = {"IPAMD_SOCKET": "ipamd.sock", "IPAMD_DATABASE": "ipamd.db", "IPAMD_RELEASED_DIR": "released"}
        own = {name: f"{self.folder}/{value}" for name, value in own.items()}
        off = {"DISABLE_METRICS": "true", "DISABLE_INTROSPECTION": "true", "AWS_REGION": "eu-west-1"}
        return {**own, **off, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1", **more}

    def say(self, program, arguments, stdin, variables):
        """Exit code, standard output and standard error, without the times in the latter."""
        stdin = stdin.replace('"type"', f'"socket": "{self.folder}/ipamd.sock", "releasedDir": "{self.folder}/released", "type"')
        ended = subprocess.run(self.line(program, arguments), input=stdin, env=self.environment(variables), capture_output=True, text=True)
        return f"exit code {ended.returncode}\n{ended.stdout}{VARIES.sub('TIME', ended.stderr)}"

    def daemon(self):
        """What is said beside a daemon that waits for the metadata service, and how it ends."""
        with open(self.folder / "log", "w") as log:
            serving = subprocess.Popen(self.line("ipamd", ["serve"]), env=self.environment({}), stdout=log, stderr=log)
        try:
            until = time.monotonic() + PATIENCE
            while "tries again" not in (text := (self.folder / "log").read_text()):
                if serving.poll() is not None or time.monotonic() > until:
                    sys.exit(f"{self.programs}: the daemon does not wait for the metadata service:\n{text}")
                time.sleep(0.05)
            said = [self.say(*question) for question in BESIDE]
            serving.send_signal(signal.SIGTERM)
            return [*said, f"exit code {serving.wait(PATIENCE)}\n"]
        finally:
            serving.kill()


def main():
    there = {program for program in ("ipamd", "eni-cni") if pathlib.Path(sys.argv[1], program).exists()}
    alone = [question for question in ALONE if question[0] in there]
    asked = [*alone, *BESIDE, ("ipamd", ["serve"], "", {})] if len(there) == 2 else alone
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for emulator, programs in [([], sys.argv[1]), (["qemu-aarch64-static"], sys.argv[2])]:
            node = pathlib.Path(folder) / "node"
            node.mkdir()
            machine = Machine(emulator, pathlib.Path(programs).resolve(), node)
            said.append([machine.say(*question) for question in alone] + (machine.daemon() if len(there) == 2 else []))
            node.rename(f"{folder}/{len(said)}")
    differ = False
    for (program, arguments, _, variables), native, emulated in zip(asked, *said, strict=True):
        if native != emulated:
            differ = True
            print(f"{' '.join([program, *arguments])} with {variables}:", file=sys.stderr)
            sys.stderr.writelines(difflib.unified_diff(native.splitlines(True), emulated.splitlines(True), "amd64", "arm64", n=0))
    if differ:
        sys.exit("the programs for arm64 say something else than those for x86-64")
    print(f"emulated: the programs for arm64 say what those for x86-64 say, {len(asked)} times")


if __name__ == "__main__":
    main()
