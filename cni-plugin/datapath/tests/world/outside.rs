//! Pods of both ENIs, and what is outside the node: the VPC, which answers and notes what came by which ENI.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    thread,
    time::Duration,
};

use eni_datapath::{Netns, add_pod};
use eni_proto::EniMark;

use super::{MAC0, MAC1, MARK, NODE, World, ip, ruleset, run, wiring};

/// A host inside the VPC, and one on the internet.
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 9);
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
/// A service's address, which is nobody's.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
pub const ON_PRIMARY: [u8; 4] = [10, 0, 1, 1];
pub const ON_SECONDARY: [u8; 4] = [10, 0, 1, 2];
pub const ALSO_ON_SECONDARY: [u8; 4] = [10, 0, 1, 3];
pub const PORT: u16 = 7;
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Long enough for a packet on this machine, short enough for a test that waits for none.
pub const SILENCE: Duration = Duration::from_millis(300);

pub struct Pods {
    pub world: World,
    pub primary: Netns,
    pub secondary: Netns,
    pub neighbour: Netns,
}

impl Pods {
    pub fn new() -> Self {
        let pods = Self {
            world: World::prepared(),
            primary: Netns::fresh().unwrap(),
            secondary: Netns::fresh().unwrap(),
            neighbour: Netns::fresh().unwrap(),
        };
        pods.world.in_fabric(fabric);
        pods.world.on_node(|| {
            add_pod(&wiring("c1", "web-1", ON_PRIMARY, EniMark::PRIMARY, &pods.primary)).unwrap();
            add_pod(&wiring("c2", "web-2", ON_SECONDARY, MARK, &pods.secondary)).unwrap();
            add_pod(&wiring("c3", "web-3", ALSO_ON_SECONDARY, MARK, &pods.neighbour)).unwrap();
        });
        pods
    }

    /// Sends a question from `pod` to `to` and returns as whom the other side saw it.
    pub fn ask(&self, pod: &Netns, to: Ipv4Addr) -> Option<Ipv4Addr> {
        pod.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            ask_over(&socket, SocketAddrV4::new(to, PORT), PATIENCE)
        })
        .unwrap()
    }

    /// By which links of the fabric packets from this source came, as `f0` or `f1`.
    pub fn seen(&self, source: impl Into<Ipv4Addr>) -> String {
        let source = source.into().to_string();
        let sets = self.world.in_fabric(ruleset);
        ["f0", "f1"].into_iter().filter(|link| sets.contains(&format!("\"{link}\" . {source}"))).collect()
    }
}

/// Routes each address to the ENI that owns it, answers for the outside, and notes what came by which link.
pub fn fabric() {
    std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
    ip("link set lo up");
    for address in [REMOTE, INTERNET, Ipv4Addr::new(10, 0, 0, 1)] {
        ip(&format!("address add {address}/32 dev lo"));
    }
    for (address, link, mac) in [
        (NODE, "f0", MAC0),
        (ON_PRIMARY.into(), "f0", MAC0),
        (ON_SECONDARY.into(), "f1", MAC1),
        (ALSO_ON_SECONDARY.into(), "f1", MAC1),
    ] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0").unwrap();
        ip(&format!("route add {address} dev {link}"));
        ip(&format!("neighbour add {address} lladdr {mac} dev {link} nud permanent"));
    }
    run("nft", "add table ip seen");
    run("nft", "add set ip seen pairs { type ifname . ipv4_addr ; flags dynamic ; }");
    run("nft", "add chain ip seen note { type filter hook prerouting priority raw ; }");
    run("nft", "add rule ip seen note add @pairs { iifname . ip saddr }");
    for address in [REMOTE, INTERNET] {
        let socket = UdpSocket::bind((address, PORT)).unwrap();
        thread::spawn(move || answer(&socket));
    }
}

/// Tells each asker as whom it was seen, until the test is over.
pub fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        socket.send_to(from.ip().to_string().as_bytes(), from).unwrap();
    }
}

pub fn ask_over(socket: &UdpSocket, to: SocketAddrV4, patience: Duration) -> Option<Ipv4Addr> {
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.send_to(b"who am I", to).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = loop {
        match socket.recv_from(&mut buffer) {
            // A process that was stopped for a moment has its waiting interrupted.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => break outcome.ok()?,
        }
    };
    assert_eq!(from, SocketAddr::V4(to), "the answer comes from where the question went");
    std::str::from_utf8(&buffer[..length]).unwrap().parse().ok()
}
