//! The built binary under requests that nobody should send. `FUZZ_EXECUTIONS` says how many, `FUZZ_SEED` where they begin.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and says how far it came"
)]

mod stage;

use std::{collections::BTreeMap, ffi::OsString, io::Write};

use eni_datapath::Netns;
use serde_json::{Map, Value, json};
use stage::{
    Answer, Node, Sandbox,
    corpus::{Recorded, recorded},
    daemon::{Daemon, Manner},
    generate::{Dice, Request, request},
    snapshot,
};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`: give a number")))
}

struct World {
    node: Node,
    daemon: Daemon,
    pod: Netns,
    corpus: Vec<Recorded>,
    fixed: Map<String, Value>,
}

impl World {
    fn new() -> Self {
        let node = Node::prepared();
        let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let pod = Netns::fresh().unwrap();
        let corpus = recorded().iter().map(|request| request.on(&node, &stage::path(&pod))).collect();
        let config = node.config();
        let fixed = ["socket", "releasedDir"].map(|key| (key.to_owned(), config[key].clone()));
        Self { node, daemon, pod, corpus, fixed: fixed.into_iter().collect() }
    }

    /// What of pods is there, in the kernel, in the daemon and in the folder of notes.
    fn state(&self) -> (Vec<String>, Vec<String>, usize) {
        let kernel = self.node.netns.inside(|| eni_datapath::pod_leftovers().unwrap()).unwrap();
        (kernel, self.daemon.leased(), self.node.files_of_notes().len())
    }

    fn run(&self, request: &Request) -> Answer {
        let mut plugin = stage::start_with(&self.node.netns, &request.environment);
        // It may end before it has read everything.
        let _ = plugin.stdin.take().unwrap().write_all(&request.stdin);
        stage::end(plugin)
    }

    /// One request. When it was an ADD that succeeded, its DEL follows.
    fn execute(&self, dice: &mut Dice) -> &'static str {
        let recorded = &self.corpus[dice.below(self.corpus.len())];
        let request = request(dice, &recorded.environment, &recorded.stdin, &self.fixed);
        let before = self.state();
        // Something that a DEL, CHECK or GC can find.
        let resident = dice.one_in(4).then(|| {
            let id = &recorded.environment.get("CNI_CONTAINERID").map_or("c1", String::as_str);
            let resident = Sandbox::new(id, "web-0", &self.pod);
            self.node.add(&resident).result();
            resident
        });
        let held = self.state();
        let answer = self.run(&request);
        let verb = request.environment.get("CNI_COMMAND").map(|verb| verb.to_string_lossy().into_owned());
        let verb = verb.as_deref().unwrap_or_default();
        let outcome = clear(&answer, verb).unwrap_or_else(|why| panic!("{why}: {answer:?} to {request:?}"));
        match (verb, answer.success) {
            ("ADD", true) => {
                let mut del = request.clone();
                del.environment.insert("CNI_COMMAND".into(), "DEL".into());
                let gone = self.run(&del);
                assert!(gone.success && gone.stdout.is_empty(), "{gone:?} to the DEL of {request:?}");
            }
            ("DEL" | "GC", _) => {}
            _ => assert_eq!(self.state(), held, "{answer:?} to {request:?}"),
        }
        if let Some(resident) = resident {
            self.node.del(&resident).is_silent_success();
        }
        assert_eq!(self.state(), before, "{answer:?} to {request:?}");
        outcome
    }
}

/// Whether the answer is one that the specification allows; which kind it is.
fn clear(answer: &Answer, verb: &str) -> Result<&'static str, &'static str> {
    let object = serde_json::from_str::<Value>(&answer.stdout).ok().filter(Value::is_object);
    match (answer.success, object) {
        (true, None) if answer.stdout.is_empty() && verb != "ADD" => Ok("silent success"),
        (true, Some(_)) if matches!(verb, "ADD" | "VERSION") => Ok("result"),
        (true, _) => Err("a success that says what it should not"),
        (false, Some(error)) => {
            let fields = error["cniVersion"].is_string() && error["code"].as_u64().is_some_and(|code| code > 0);
            let reason = error["msg"].as_str().is_some_and(|msg| msg.len() > 10 && msg.len() < 100_000);
            if fields && reason { Ok("clear error") } else { Err("an error without code or reason") }
        }
        (false, None) => Err("no error object"),
    }
}

#[test]
fn whatever_the_input_the_answer_is_clear_and_nothing_is_left() {
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_EXECUTIONS", 400));
    let world = World::new();
    let before = (world.node.snapshot(), snapshot(&world.pod));
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + count {
        let run = std::panic::AssertUnwindSafe(|| world.execute(&mut Dice::new(seed)));
        match std::panic::catch_unwind(run) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(_) => panic!("repeat it with FUZZ_SEED={seed} FUZZ_EXECUTIONS=1"),
        }
    }
    assert_eq!((world.node.snapshot(), snapshot(&world.pod)), before);
    println!("{count} executions from seed {first}: {outcomes:?}, 0 crashes, nothing left");
    if count >= 400 {
        assert_eq!(outcomes.len(), 3, "all kinds of answers: {outcomes:?}");
    }
}

#[test]
fn input_that_was_once_answered_badly_is_answered_well() {
    let world = World::new();
    let own = |key: &str, value: Value| {
        let mut config = world.node.config();
        config[key] = value;
        config.to_string().into_bytes()
    };
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let environment: BTreeMap<String, OsString> = Sandbox::new("c1", "web-0", &world.pod)
        .environment("ADD")
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    for stdin in [deep, own("name", json!("x".repeat(300))), own("prevResult", json!([[]])), b"\xef\xbb\xbf{}".to_vec()]
    {
        let answer = world.run(&Request { environment: environment.clone(), stdin });
        assert_eq!(clear(&answer, "ADD"), Ok("clear error"), "{}", answer.stdout);
    }
}
