//! Flows that run all the time: UDP with numbers, one packet after the answer to the last, and TCP connections that never close.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use lab::{INTERNET_HOST, Namespace, wait};

use crate::{layout::World, stage::PATIENCE};

const PORT: u16 = 7000;
/// On the primary ENI, as a NodePort.
const NODE_PORT: u16 = 30080;
/// An answer that takes longer does not come.
const LOST_AFTER: Duration = Duration::from_secs(20);
const PACE: Duration = Duration::from_millis(20);

/// What one flow has seen.
struct Flow {
    name: String,
    answered: AtomicU64,
    trouble: Mutex<Vec<String>>,
}

/// All flows of a node.
pub(crate) struct Traffic {
    flows: Vec<Arc<Flow>>,
    /// Each flow ends when its sender is gone.
    stops: Vec<mpsc::Sender<()>>,
    threads: Vec<thread::JoinHandle<()>>,
    over: Arc<AtomicBool>,
}

impl Traffic {
    /// Starts servers and flows of all pods but the last, and one over a port of the node.
    pub(crate) fn start(world: &World) -> Self {
        let neighbour = world.cluster.workers[1].node().namespace();
        let internet = world.cluster.lab.internet();
        let mut traffic = Self { flows: Vec::new(), stops: Vec::new(), threads: Vec::new(), over: Arc::default() };
        let peer = address_of(neighbour);
        for server in [&**neighbour, internet] {
            traffic.serve(server);
        }
        let pods = &world.pods[..world.pods.len() - 1];
        pods.iter().for_each(|pod| traffic.serve(pod.sandbox.pod.namespace()));
        for (number, pod) in pods.iter().enumerate() {
            let other = pods[(number + 1) % pods.len()].address;
            let (inside, name) = (pod.sandbox.pod.namespace(), &pod.sandbox.name);
            let (udp, tcp) = match number % 3 {
                0 => (INTERNET_HOST, peer),
                1 => (peer, other),
                _ => (other, INTERNET_HOST),
            };
            traffic.udp(inside, &format!("{name} UDP to {udp}"), (udp, PORT).into());
            traffic.tcp(inside, &format!("{name} TCP to {tcp}"), (tcp, PORT).into());
        }
        let behind = world.pods.iter().find(|pod| pod.device > 0).unwrap().address;
        let dnat = format!(
            "{} -t nat -A PREROUTING -p udp --dport {NODE_PORT} -m addrtype --dst-type LOCAL -j DNAT --to-destination {behind}:{PORT}",
            world.flavour
        );
        world.node().run(&["sh", "-ec", &dnat]).unwrap();
        traffic.udp(internet, "internet to the node's port", (world.primary, NODE_PORT).into());
        traffic.udp(neighbour, "neighbour to the node's port", (world.primary, NODE_PORT).into());
        traffic
    }

    /// Waits until each flow has had this many answers more than now.
    pub(crate) async fn until(&self, more: u64) {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.answered.load(Ordering::Relaxed)).collect();
        let all = || async {
            let late = self.flows.iter().zip(&before);
            let late = late.filter(|(flow, before)| flow.answered.load(Ordering::Relaxed) < *before + more);
            let late: Vec<String> =
                late.map(|(flow, _)| format!("{}: {:?}", flow.name, flow.trouble.lock().unwrap())).collect();
            if late.is_empty() { Ok(()) } else { Err(late.join("\n")) }
        };
        wait::until(PATIENCE * 2, "answers on all flows", all).await.unwrap();
    }

    /// Ends all flows. Returns how many packets were answered, and what was lost.
    pub(crate) fn end(mut self) -> (u64, Vec<String>) {
        self.stops.clear();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.over.store(true, Ordering::Relaxed);
        let answered = self.flows.iter().map(|flow| flow.answered.load(Ordering::Relaxed)).sum();
        let lost = self.flows.iter().flat_map(|flow| {
            let trouble = flow.trouble.lock().unwrap().clone();
            trouble.into_iter().map(|what| format!("{}: {what}", flow.name)).collect::<Vec<_>>()
        });
        (answered, lost.collect())
    }

    pub(crate) fn count(&self) -> usize {
        self.flows.len()
    }

    /// Echoes over both protocols until the process ends.
    fn serve(&self, place: &Namespace) {
        let (udp, tcp) = place
            .inside(|| (UdpSocket::bind(("0.0.0.0", PORT)).unwrap(), TcpListener::bind(("0.0.0.0", PORT)).unwrap()))
            .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        });
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..length]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    fn udp(&mut self, place: &Namespace, name: &str, target: SocketAddr) {
        let open = || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(("0.0.0.0", 0))?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(LOST_AFTER))?;
            Ok(socket)
        };
        let socket = place.inside(open).unwrap().unwrap();
        self.run(name, move |number| {
            socket.send(&number.to_be_bytes()).map_err(|error| error.to_string())?;
            let mut answer = [0; 8];
            // An answer to an earlier number would be a packet that came twice or late.
            loop {
                socket.recv(&mut answer).map_err(|error| format!("number {number} lost: {error}"))?;
                if u64::from_be_bytes(answer) == number {
                    return Ok(());
                }
            }
        });
    }

    fn tcp(&mut self, place: &Namespace, name: &str, target: SocketAddr) {
        let open = || -> std::io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&target, LOST_AFTER)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOST_AFTER))?;
            Ok(stream)
        };
        let mut stream = place.inside(open).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        self.run(name, move |number| {
            stream.write_all(&number.to_be_bytes()).map_err(|error| error.to_string())?;
            let mut answer = [0; 8];
            stream.read_exact(&mut answer).map_err(|error| format!("number {number}: {error}"))?;
            if u64::from_be_bytes(answer) == number { Ok(()) } else { Err(format!("{answer:?} for {number}")) }
        });
    }

    fn run(&mut self, name: &str, mut exchange: impl FnMut(u64) -> Result<(), String> + Send + 'static) {
        let flow = Arc::new(Flow { name: name.to_owned(), answered: AtomicU64::new(0), trouble: Mutex::default() });
        let (stop, stopped) = mpsc::channel();
        let own = Arc::clone(&flow);
        self.threads.push(thread::spawn(move || {
            for number in 0.. {
                match exchange(number) {
                    Ok(()) => drop(own.answered.fetch_add(1, Ordering::Relaxed)),
                    // The kernel drops what is sent over a link before it has noticed that the link is up.
                    Err(_) if own.answered.load(Ordering::Relaxed) == 0 => {}
                    Err(why) => own.trouble.lock().unwrap().push(why),
                }
                if stopped.recv_timeout(PACE) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        }));
        self.flows.push(flow);
        self.stops.push(stop);
    }
}

fn address_of(node: &Namespace) -> Ipv4Addr {
    let text = node.run(&["ip", "-4", "-o", "addr", "show", "scope", "global"]).unwrap();
    let word = text.split_whitespace().find(|word| word.starts_with("10."));
    word.and_then(|word| word.split('/').next()).unwrap().parse().unwrap()
}
