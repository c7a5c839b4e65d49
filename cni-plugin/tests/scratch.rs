#![allow(clippy::unwrap_used, unused, missing_docs)]
mod stage;
use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{Node, Sandbox, daemon::{Daemon, Manner}, ip, ip_json, snapshot, run_in};

#[test]
fn long_names() {
    for length in [40, 60, 70,80, 90, 100,110,120,130,140,150, 200, 300, 5000] {
        let node = Node::prepared();
        let before = node.snapshot();
        let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let pod = Netns::fresh().unwrap();
        let mut config = node.config();
        config["name"] = "n".repeat(length).into();
        let id = "c".repeat(64);
        let sandbox = Sandbox::new(&id, "web-0", &pod);
        let add = node.run("ADD", &sandbox, &config);
        println!("{length}: {} {}", add.success, add.stdout.replace(&"n".repeat(length), "N").replace(&id,"C").trim());
        let del = node.run("DEL", &sandbox, &config);
        println!("   del {} {} same {} leases {:?}", del.success, del.stdout, node.snapshot() == before, daemon.leased().len());
        drop(daemon);
        let del = node.run("DEL", &sandbox, &config);
        println!("   del without daemon {} {} notes {}", del.success, del.stdout.replace(&"n".repeat(length), "N").replace(&id,"C").trim(), node.files_of_notes().len());
    }
}
