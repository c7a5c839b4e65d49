//! What is sent over a stage: round trips, packets one way, a TCP stream, and new TCP connections.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use e2e::Trouble;
use lab::Namespace;
use nix::{
    libc::linger,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt::Linger,
    },
};

use crate::{
    report::Samples,
    stage::{DISCARD, ECHO, SINK, Stage},
};

/// Round trips in one round.
const PINGS: usize = 200;
/// Packets in one round.
const PACKETS: u32 = 10_000;
/// Bytes of one stream.
const STREAM: usize = 32 << 20;
/// Connections in one round.
const CONNECTIONS: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(5);

/// Who talks to the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// In the node's own namespace instead of the pod's.
    pub(crate) by_host: bool,
    pub(crate) from: IpAddr,
    pub(crate) peer: IpAddr,
}

impl Stage {
    fn within(&self, way: Way) -> &Namespace {
        if way.by_host { &self.node } else { self.pod.namespace() }
    }

    fn udp(&self, way: Way, port: u16) -> Result<UdpSocket, Trouble> {
        let open = move || {
            let socket = UdpSocket::bind((way.from, 0))?;
            socket.connect((way.peer, port))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok::<_, io::Error>(socket)
        };
        self.within(way).inside(open)?.map_err(Trouble::os("open a socket"))
    }

    /// Adds round trips in microseconds.
    pub(crate) fn ping(&self, way: Way, times: &mut Samples) -> Result<(), Trouble> {
        let socket = self.udp(way, ECHO)?;
        let mut buffer = [0; 64];
        for _ in 0..PINGS {
            let started = Instant::now();
            let answered = socket.send(&buffer[..56]).and_then(|_| socket.recv(&mut buffer));
            answered.map_err(Trouble::os(format!("get an answer from {}", way.peer)))?;
            times.add(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }

    /// Nanoseconds of this thread for one packet from the sender to the peer's link: the kernel forwards in the sender's own time.
    pub(crate) fn flood(&self, way: Way) -> Result<f64, Trouble> {
        let socket = self.udp(way, DISCARD)?;
        let before = self.arrived(way)?;
        let started = own_time()?;
        for _ in 0..PACKETS {
            socket.send(&[0; 22]).map_err(Trouble::os("send"))?;
        }
        let took = own_time()? - started;
        let arrived = self.arrived(way)? - before;
        if arrived < u64::from(PACKETS) * 99 / 100 {
            return Err(Trouble::Broken(format!("only {arrived} of {PACKETS} packets were forwarded")));
        }
        Ok(took / f64::from(PACKETS))
    }

    /// Packets that came in at the peer, by the pod's ENI or the node's.
    fn arrived(&self, way: Way) -> Result<u64, Trouble> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.peer.inside(read)?.map_err(Trouble::os("read the peer's counters"))?;
        let link = if way.by_host { "p0:" } else { "p1:" };
        let line = text.lines().find_map(|line| line.trim().strip_prefix(link));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|count| count.parse().ok());
        packets.ok_or_else(|| Trouble::Broken(format!("no counter of {link} in {text}")))
    }

    /// Gigabits a second of one TCP stream, until the peer has all of it.
    pub(crate) fn stream(&self, way: Way) -> Result<f64, Trouble> {
        let sent = self.within(way).inside(move || {
            let chunk = vec![0; 1 << 18];
            let mut stream = dial(way)?;
            let started = Instant::now();
            for _ in 0..STREAM / chunk.len() {
                stream.write_all(&chunk)?;
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read_exact(&mut [0])?;
            Ok::<_, io::Error>(started.elapsed())
        })?;
        let took = sent.map_err(Trouble::os("send a stream"))?;
        let gigabits = u32::try_from(STREAM).map_or(0.0, f64::from) * 8.0 / 1e9;
        Ok(gigabits / took.as_secs_f64())
    }

    /// New TCP connections a second, one after another.
    pub(crate) fn connections(&self, way: Way) -> Result<f64, Trouble> {
        let done = self.within(way).inside(move || {
            let started = Instant::now();
            for _ in 0..CONNECTIONS {
                // Gone at once, so that what is left of it is in nobody's way.
                setsockopt(&dial(way)?, Linger, &linger { l_onoff: 1, l_linger: 0 })?;
            }
            Ok::<_, io::Error>(started.elapsed())
        })?;
        let took = done.map_err(Trouble::os("open a connection"))?;
        Ok(f64::from(CONNECTIONS) / took.as_secs_f64())
    }
}

/// From the way's own address.
fn dial(way: Way) -> io::Result<TcpStream> {
    let family = if way.from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let at = |address, port| SockaddrStorage::from(SocketAddr::new(address, port));
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &at(way.from, 0))?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &at(way.peer, SINK))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Nanoseconds that this thread has run, whatever else the machine did. Source: proc(5), schedstat.
fn own_time() -> Result<f64, Trouble> {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").map_err(Trouble::os("read this thread's time"))?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| Trouble::Broken(format!("no time in {text}")))
}
