//! `kill -9` at each step of ADD, DEL and GC: one repeated DEL leaves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and says how far it came"
)]

mod stage;

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
    fault::Outcome,
    snapshot,
};

/// A node with one sandbox to work on, and what it looked like before.
struct World {
    node: Node,
    daemon: Option<Daemon>,
    pod: Netns,
    sandbox: Sandbox,
    before: (String, String),
}

impl World {
    fn new() -> Self {
        let node = Node::prepared();
        let daemon = Some(Daemon::start_as(&node.socket(), Manner::Secondary));
        let pod = Netns::fresh().unwrap();
        let sandbox = Sandbox::new("c1", "web-0", &pod);
        let before = (node.snapshot(), snapshot(&pod));
        Self { node, daemon, pod, sandbox, before }
    }

    /// With a first interface in the pod already, so that all is about a second one.
    fn with_first_interface() -> Self {
        let mut world = Self::new();
        world.node.add(&world.sandbox).result();
        world.sandbox = world.sandbox.interface("net1");
        world.before = (world.node.snapshot(), snapshot(&world.pod));
        world
    }

    /// With a daemon that deletes the links which DEL leaves.
    fn with_deleting_daemon() -> Self {
        let world = Self::new();
        world.daemon.as_ref().unwrap().deletes_links_on(&world.node);
        world
    }

    fn daemon_dies(&mut self) {
        self.daemon = None;
        std::fs::remove_file(self.node.socket()).unwrap();
    }

    #[track_caller]
    fn nothing_is_left(&self, after: &str) {
        self.node.comes_to(&self.before.0, after);
        assert_eq!(snapshot(&self.pod), self.before.1, "{after}");
        if let Some(daemon) = &self.daemon {
            assert!(!daemon.leased().contains(&self.sandbox.key()), "{after}");
            assert!(self.node.files_of_notes().is_empty(), "{after}: {:?}", self.node.files_of_notes());
        }
    }
}

/// Kills `verb` at each of its steps, one after the other, with `before` it and `after` it; returns the number of steps.
fn at_each_step(verb: &str, world: &World, before: impl Fn(), after: impl Fn(&str)) -> usize {
    for step in 0.. {
        before();
        match world.node.run_killed(verb, &world.sandbox, &world.node.config(), step) {
            Outcome::Killed(call) => after(&format!("{verb} killed at step {step}, before system call {call}")),
            Outcome::Ended(answer) => {
                assert!(answer.success, "{}", answer.stdout);
                after(&format!("{verb} that was not killed"));
                println!("{verb}: {step} steps");
                return step;
            }
        }
    }
    unreachable!("a plugin ends")
}

#[test]
fn an_add_killed_at_any_step_leaves_nothing_after_one_del() {
    for world in [World::new(), World::with_deleting_daemon(), World::with_first_interface()] {
        let steps = at_each_step(
            "ADD",
            &world,
            || (),
            |killed| {
                world.node.del(&world.sandbox).is_silent_success();
                world.nothing_is_left(killed);
            },
        );
        assert!(steps > 10, "{steps}");
    }
}

#[test]
fn an_add_killed_at_any_step_is_finished_by_its_repetition() {
    for world in [World::new(), World::with_deleting_daemon(), World::with_first_interface()] {
        at_each_step(
            "ADD",
            &world,
            || (),
            |killed| {
                let mut config = world.node.config();
                config["prevResult"] = world.node.add(&world.sandbox).result();
                let check = world.node.run("CHECK", &world.sandbox, &config);
                assert!(check.success, "{killed}: {}", check.stdout);
                world.node.del(&world.sandbox).is_silent_success();
                world.nothing_is_left(killed);
            },
        );
    }
}

#[test]
fn a_del_killed_at_any_step_leaves_nothing_after_one_more() {
    for world in [World::new(), World::with_deleting_daemon(), World::with_first_interface()] {
        let steps = at_each_step(
            "DEL",
            &world,
            || drop(world.node.add(&world.sandbox).result()),
            |killed| {
                world.node.del(&world.sandbox).is_silent_success();
                world.nothing_is_left(killed);
            },
        );
        assert!(steps > 5, "{steps}");
    }
}

#[test]
fn a_del_killed_at_any_step_without_a_daemon_leaves_one_whole_note_after_one_more() {
    let mut world = World::new();
    world.daemon_dies();
    for step in 0.. {
        let daemon = Daemon::start_as(&world.node.socket(), Manner::Secondary);
        world.node.add(&world.sandbox).result();
        drop(daemon);
        let outcome = world.node.run_killed("DEL", &world.sandbox, &world.node.config(), step);
        world.node.del(&world.sandbox).is_silent_success();
        world.nothing_is_left(&format!("{outcome:?} at step {step}"));
        assert_eq!(world.node.notes(), [world.sandbox.key()], "{outcome:?} at step {step}");
        assert_eq!(world.node.files_of_notes().len(), 1, "{outcome:?} at step {step}");
        if matches!(outcome, Outcome::Ended(_)) {
            println!("DEL without a daemon: {step} steps");
            return;
        }
    }
}

#[test]
fn a_del_killed_without_a_daemon_leaves_no_note_when_the_next_one_meets_the_daemon() {
    let mut world = World::new();
    for step in 0.. {
        world.node.add(&world.sandbox).result();
        // The daemon goes on with what it knew, as from its database.
        let away = world.node.folder.path().join("away.sock");
        std::fs::rename(world.node.socket(), &away).unwrap();
        let outcome = world.node.run_killed("DEL", &world.sandbox, &world.node.config(), step);
        std::fs::rename(&away, world.node.socket()).unwrap();
        world.node.del(&world.sandbox).is_silent_success();
        world.nothing_is_left(&format!("{outcome:?} at step {step}"));
        if matches!(outcome, Outcome::Ended(_)) {
            world.daemon_dies();
            return;
        }
    }
}

#[test]
fn a_gc_killed_at_any_step_leaves_nothing_after_one_more() {
    let world = World::new();
    let mut config = world.node.config();
    (config["cniVersion"], config["cni.dev/valid-attachments"]) = ("1.1.0".into(), json!([]));
    let gc = |config: &Value| world.node.run("GC", &world.sandbox, config).is_silent_success();
    for step in 0.. {
        world.node.add(&world.sandbox).result();
        let outcome = world.node.run_killed("GC", &world.sandbox, &config, step);
        gc(&config);
        assert_eq!(world.node.snapshot(), world.before.0, "{outcome:?} at step {step}");
        assert!(world.daemon.as_ref().unwrap().leased().is_empty(), "{outcome:?} at step {step}");
        if matches!(outcome, Outcome::Ended(_)) {
            println!("GC: {step} steps");
            return;
        }
    }
}
