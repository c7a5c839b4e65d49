//! A name server on a node, of which the node's `/etc/resolv.conf` tells.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::node::Stage;

/// Where it listens on the node.
const LISTEN: &str = "127.0.0.53";
/// Length of a message's header, of a question's type and class, and the type of an IPv4 address. Source: RFC 1035, section 4.
const HEADER: usize = 12;
const TYPE_AND_CLASS: usize = 4;
const IPV4: [u8; 2] = [0, 1];

/// The server. Ends with the test.
pub(crate) struct Names {
    asked: Arc<AtomicUsize>,
}

impl Names {
    /// From now on every name has this IPv4 address, and no other.
    pub(crate) fn serve(stage: &Stage, address: Ipv4Addr) -> Self {
        let worker = stage.worker();
        let socket = worker.node().namespace().inside(|| UdpSocket::bind((LISTEN, 53))).unwrap().unwrap();
        socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                if let Some(answer) = answer(&question[..length], address) {
                    count.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        let told = worker.node().directory().join("resolv.conf");
        fs::write(&told, format!("nameserver {LISTEN}\n")).unwrap();
        // In the mounts of the machine that containerd runs on, which are nobody else's.
        stage.containerd().site().run(&["mount", "--bind", told.to_str().unwrap(), "/etc/resolv.conf"]).unwrap();
        Self { asked }
    }

    /// How many questions it has answered.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The answer to a message with one question. Nothing: it makes no sense.
fn answer(message: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let name = message.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = message.get(HEADER..HEADER + name + TYPE_AND_CLASS)?;
    let is_ipv4 = question[name..].starts_with(&IPV4);
    let mut answer = message[..2].to_vec();
    // A response without an error; one question, at most one answer, nothing else.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(question);
    if is_ipv4 {
        // The name of the question, type, class, 60 seconds, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
