//! Requests that nobody should send, made of those that runtimes did send. The same seed makes the same request.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by a unit test and an integration test")]

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt};

use serde_json::{Map, Value, json};

/// Environment and standard input of one run.
#[derive(Debug, Clone)]
pub struct Request {
    pub environment: BTreeMap<String, OsString>,
    pub stdin: Vec<u8>,
}

/// Keys that must stay what they are, so that a test's plugin never talks to the machine's own daemon.
pub type Fixed = Map<String, Value>;

const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];
const VARIABLES: [&str; 6] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_COMMAND"];
const KEYS: [&str; 17] = [
    "cniVersion",
    "name",
    "type",
    "prevResult",
    "args",
    "runtimeConfig",
    "capabilities",
    "addWaitSeconds",
    "vethPrefix",
    "cni.dev/valid-attachments",
    "cni.dev/attachments",
    "dns",
    "socket",
    "releasedDir",
    "interfaces",
    "ips",
    "routes",
];

/// Numbers that look random and are the same for the same seed (`splitmix64`).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[self.below(things.len())]
    }
}

/// Makes a request out of one that a runtime sent.
pub fn request(dice: &mut Dice, environment: &BTreeMap<String, String>, stdin: &Value, fixed: &Fixed) -> Request {
    let mut environment: BTreeMap<_, OsString> =
        environment.iter().map(|(name, value)| (name.clone(), value.into())).collect();
    for _ in 0..dice.below(3) {
        change_variable(dice, &mut environment);
    }
    if !dice.one_in(12) {
        environment.insert("CNI_COMMAND".to_owned(), (*dice.pick(&VERBS)).into());
    }
    let mut stdin = stdin.clone();
    for _ in 0..dice.below(4) {
        change(dice, &mut stdin, 0);
    }
    if let Value::Object(object) = &mut stdin {
        object.extend(fixed.clone());
        // One that is refused is as good as the right one.
        if dice.one_in(16) {
            let (key, value) =
                (*dice.pick(&["socket", "releasedDir"]), dice.pick(&[json!(7), json!("here"), json!([])]).clone());
            object.insert(key.to_owned(), value);
        }
    }
    let mut bytes = stdin.to_string().into_bytes();
    if dice.one_in(6) {
        let damaged = damage(dice, bytes.clone());
        // What can still be read must still lead to the test's own daemon.
        if serde_json::from_slice::<Value>(&damaged).is_err() {
            bytes = damaged;
        }
    }
    Request { environment, stdin: bytes }
}

fn change_variable(dice: &mut Dice, environment: &mut BTreeMap<String, OsString>) {
    let name = (*dice.pick(&VARIABLES)).to_owned();
    match dice.below(5) {
        0 => drop(environment.remove(&name)),
        1 => {
            let bytes = (0..dice.below(20)).map(|_| u8::try_from(1 + dice.below(255)).unwrap()).collect();
            drop(environment.insert(name, OsString::from_vec(bytes)));
        }
        _ => drop(environment.insert(name, text(dice).replace('\0', "").into())),
    }
}

/// Changes the value or something inside it.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other kinds of JSON values are replaced")]
fn change(dice: &mut Dice, value: &mut Value, depth: usize) {
    let inside = !dice.one_in(4 + depth);
    match value {
        Value::Object(object) if inside => {
            let keys: Vec<String> = object.keys().cloned().collect();
            match (dice.below(5), keys.is_empty()) {
                (0, _) | (_, true) => drop(object.insert((*dice.pick(&KEYS)).to_owned(), any(dice, 0))),
                (1, false) => drop(object.shift_remove(dice.pick(&keys))),
                (2, false) => {
                    let key = dice.pick(&keys);
                    let value = object.shift_remove(key).unwrap();
                    let other = if dice.one_in(2) { key.to_uppercase() } else { text(dice) };
                    object.insert(other, value);
                }
                (_, false) => {
                    let key = dice.pick(&keys);
                    change(dice, object.get_mut(key).unwrap(), depth + 1);
                }
            }
        }
        Value::Array(list) if inside && !list.is_empty() => {
            let at = dice.below(list.len());
            match dice.below(3) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => change(dice, &mut list[at], depth + 1),
            }
        }
        other => *other = any(dice, 0),
    }
}

fn any(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth > 3 { 7 } else { 9 }) {
        0 => Value::Null,
        1 => dice.one_in(2).into(),
        2 => dice.next().into(),
        3 => json!(-1),
        4 => json!(1e308),
        5 | 6 => text(dice).into(),
        7 => (0..dice.below(4)).map(|_| any(dice, depth + 1)).collect(),
        _ => {
            let entries = (0..dice.below(4)).map(|_| ((*dice.pick(&KEYS)).to_owned(), any(dice, depth + 1)));
            Value::Object(entries.collect())
        }
    }
}

fn text(dice: &mut Dice) -> String {
    const TEXTS: [&str; 34] = [
        "",
        " ",
        ".",
        "..",
        "/",
        "-",
        "a/b",
        "a:b",
        "a b",
        "c1",
        "eth0",
        "net1",
        "pods",
        "other",
        "dummy",
        "1.0.0",
        "1.1.0",
        "0.4.0",
        "0.1.0",
        "9.9.9",
        "10.0.0.1/32",
        "10.0.0.1",
        "0.0.0.0/0",
        "02:00:00:00:00:01",
        "K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default",
        "IP=10.0.0.9",
        "K8S_POD_NAME==;;=;K8S_POD_NAMESPACE",
        "/etc/hostname",
        "/proc/self/ns/net",
        "\u{202e}\u{0}\n\t",
        "é̂🦀",
        "sixteen-bytes-xx",
        "%n%s$(id)`id`",
        "../../../etc/passwd",
    ];
    match dice.below(12) {
        0 => "x".repeat(1 + dice.below(5000)),
        1 => {
            (0..dice.below(12)).filter_map(|_| char::from_u32(u32::try_from(dice.below(0x11_0000)).unwrap())).collect()
        }
        _ => (*dice.pick(&TEXTS)).to_owned(),
    }
}

fn damage(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    let at = dice.below(bytes.len() + 1);
    match dice.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, u8::try_from(dice.below(256)).unwrap()),
        2 => drop(bytes.splice(at..at, *b"\xff\xfe\xf0\x28")),
        3 => drop(bytes.splice(0..0, *b"\xef\xbb\xbf")),
        4 => bytes = [b"[".repeat(1 + dice.below(100_000)), bytes].concat(),
        _ => bytes.clear(),
    }
    bytes
}
