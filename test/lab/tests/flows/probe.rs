//! Servers that tell each asker as whom they saw it, and the asking.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    thread,
    time::Duration,
};

use lab::Namespace;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt::IpTransparent,
};

use crate::services::PORT;

/// What a pod does that takes somebody else's address.
pub(crate) trait Claims {
    /// Does `work` inside while the place has this address too.
    fn with_address<T: Send>(&self, address: IpAddr, work: impl FnOnce() -> T + Send) -> T;

    /// Does `work` outside while the place has this address on its link and tells everybody there by ARP or neighbour discovery.
    fn with_address_told<T>(&self, address: IpAddr, work: impl FnOnce() -> T) -> T;
}

impl Claims for Namespace {
    fn with_address<T: Send>(&self, address: IpAddr, work: impl FnOnce() -> T + Send) -> T {
        self.ip(&format!("addr add {}\n", at_once(address, "lo"))).unwrap();
        let result = self.inside(work).unwrap();
        self.ip(&format!("addr del {}\n", at_once(address, "lo"))).unwrap();
        result
    }

    fn with_address_told<T>(&self, address: IpAddr, work: impl FnOnce() -> T) -> T {
        // It asks for somebody who is not there, in the name of whose address it took.
        let nobody: IpAddr = if address.is_ipv4() { [169, 254, 9, 9].into() } else { "2001:db8:9::9".parse().unwrap() };
        let lie = format!("addr add {}\nroute add {nobody} dev eth0 src {address}\n", at_once(address, "eth0"));
        self.ip(&lie).unwrap();
        self.inside(|| UdpSocket::bind((any(address), 0)).unwrap().send_to(&[0], (nobody, PORT)).unwrap()).unwrap();
        let result = work();
        self.ip(&format!("route del {nobody} dev eth0\naddr del {}\n", at_once(address, "eth0"))).unwrap();
        result
    }
}

/// The address as `ip addr` takes it, without a look whether somebody else has it.
fn at_once(address: IpAddr, link: &str) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}/32 dev {link}"),
        IpAddr::V6(address) => format!("{address}/128 dev {link} nodad"),
    }
}

/// No address, of the same family.
fn any(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }
}

/// How long an answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for an answer that shall not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);
/// A question begins with how many bytes shall follow the answer.
const HEAD: usize = 8;

/// Answers on `address` over TCP and UDP until the process ends, from the calling thread's namespace.
pub(crate) fn serve(name: &'static str, address: IpAddr) {
    let listener = TcpListener::bind((address, PORT)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer_stream(name, stream?));
        }
    });
    let socket = UdpSocket::bind((address, PORT)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = whole(|| socket.recv_from(&mut buffer)) {
            let _ = socket.send_to(format!("{name} {}", from.ip()).as_bytes(), from);
        }
    });
}

/// A process that was stopped for a moment has its waiting interrupted.
fn whole<T>(mut wait: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match wait() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn answer_stream(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let mut question = Vec::new();
    stream.read_to_end(&mut question)?;
    let head = question.first_chunk::<HEAD>().copied().unwrap_or_default();
    writeln!(stream, "{name} {}", stream.peer_addr()?.ip())?;
    stream.write_all(&vec![b'.'; usize::try_from(u64::from_be_bytes(head)).map_err(io::Error::other)?])
}

/// Who answered, and as whom it saw the asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) server: String,
    pub(crate) seen_as: IpAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let parts = text.trim().split_once(' ');
        let (server, seen_as) = parts.ok_or_else(|| io::Error::other(format!("odd answer `{text}`")))?;
        Ok(Self { server: server.to_owned(), seen_as: seen_as.parse().map_err(io::Error::other)? })
    }
}

/// Asks over TCP, with `bytes` more in both directions. Returns when both sides have closed.
pub(crate) fn ask_tcp(target: SocketAddr, bytes: usize, patience: Duration) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&target, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&(bytes as u64).to_be_bytes())?;
    stream.write_all(&vec![b'.'; bytes])?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
    if rest.len() != bytes {
        return Err(io::Error::other(format!("{} bytes came back instead of {bytes}", rest.len())));
    }
    Answer::parse(line)
}

/// Asks over UDP with one packet.
pub(crate) fn ask_udp(target: SocketAddr, patience: Duration) -> io::Result<Answer> {
    ask_over(&session(target, patience)?)
}

/// Asks over UDP with one packet from this address, which is the calling thread's.
pub(crate) fn ask_udp_from(source: IpAddr, target: SocketAddr, patience: Duration) -> io::Result<Answer> {
    ask_over(&session_from(source, target, patience)?)
}

/// Asks from `place` with one packet that has the address of `pod`, who hears the answer.
pub(crate) fn ask_udp_in_name_of(
    pod: (&Namespace, IpAddr),
    place: &Namespace,
    target: SocketAddr,
    patience: Duration,
) -> io::Result<Answer> {
    let heard = pod.0.inside(|| session_from(pod.1, target, patience)).map_err(io::Error::other)??;
    let source = heard.local_addr()?;
    place.inside(|| send_as(source, target)).map_err(io::Error::other)??;
    hear(&heard)
}

/// Sends a question from an address that the calling thread's namespace has not.
fn send_as(source: SocketAddr, target: SocketAddr) -> io::Result<()> {
    let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, IpTransparent, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    UdpSocket::from(socket).send_to(&[0; HEAD], target).map(drop)
}

/// Opens a socket that takes answers only from where the questions go, and hears of ICMP errors.
pub(crate) fn session(target: SocketAddr, patience: Duration) -> io::Result<UdpSocket> {
    session_from(any(target.ip()), target, patience)
}

fn session_from(source: IpAddr, target: SocketAddr, patience: Duration) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((source, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(patience))?;
    Ok(socket)
}

/// Asks with one packet.
pub(crate) fn ask_over(session: &UdpSocket) -> io::Result<Answer> {
    session.send(&[0; HEAD])?;
    hear(session)
}

/// Asks over UDP with one datagram of so many bytes.
pub(crate) fn ask_udp_at_length(target: SocketAddr, bytes: usize, patience: Duration) -> io::Result<Answer> {
    let session = session(target, patience)?;
    session.send(&vec![0; bytes])?;
    hear(&session)
}

/// Waits for one answer.
fn hear(session: &UdpSocket) -> io::Result<Answer> {
    let mut buffer = [0; 64];
    let length = whole(|| session.recv(&mut buffer))?;
    Answer::parse(&String::from_utf8_lossy(&buffer[..length]))
}
