//! The real daemon under gRPC messages that nobody should send: it answers each, and no pod loses anything.
//!
//! Messages are made field by field from values that are nearly right, or are valid ones with bytes changed, cut out and doubled.
//! `FUZZ_EXECUTIONS` says how many, `FUZZ_SEED` where they begin.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is not as it should be, and how far it came"
)]

use std::{collections::BTreeMap, time::Duration};

use e2e::{Worker, WorkerState, flight, observe, plugin::NETWORK};
use eni_proto::wire;
use lab::wait;
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use tokio::{io::AsyncWriteExt, net::UnixStream};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

mod stage;

use stage::{PATIENCE, ready_cluster};

const VERBS: [&str; 5] = ["Add", "Del", "Check", "Gc", "Status"];
/// An ADD may ask to wait for minutes: then the caller goes away, as plugins do that are killed.
const CALLER_PATIENCE: Duration = Duration::from_millis(30);
/// Every so many, bytes that are no gRPC.
const RAW_EVERY: u64 = 50;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`")))
}

/// Bytes as they are, so that they can be no message at all.
#[derive(Debug, Clone, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.0.next_u32()).unwrap() % count
    }

    fn text(&mut self) -> String {
        // Never the network of the pods that live.
        let texts = ["fuzz", "", " ", "a/b", "../..", "\0", "eth0", "ünï", "16-bytes-are-too", "%s%n", "\u{202e}"];
        match self.below(texts.len() + 2) {
            n if n < texts.len() => texts[n].to_owned(),
            n if n == texts.len() => "x".repeat(self.below(5000)),
            _ => format!("{:x}", self.0.next_u64()),
        }
    }

    fn key(&mut self) -> Option<wire::PodKey> {
        let mut key = wire::PodKey {
            network: "fuzz".to_owned(),
            container_id: format!("c{}", self.below(20)),
            interface: "eth0".to_owned(),
        };
        match self.below(8) {
            0 => return None,
            1 => key.network = self.text(),
            2 => key.container_id = self.text(),
            3 => key.interface = self.text(),
            _ => {}
        }
        Some(key)
    }

    /// A message whose fields are nearly right.
    fn message(&mut self, verb: &str) -> Vec<u8> {
        match verb {
            "Add" => wire::AddRequest {
                key: self.key(),
                netns: if self.below(2) == 0 { "/proc/1/ns/net".to_owned() } else { self.text() },
                pod: (self.below(4) > 0).then(|| wire::Pod {
                    namespace: self.text(),
                    name: self.text(),
                    uid: self.text(),
                }),
                wait_milliseconds: [0, 1, 1000, u32::MAX][self.below(4)],
                multi_nic: self.below(4) == 0,
            }
            .encode_to_vec(),
            "Del" => wire::DelRequest { key: self.key(), link_left: self.below(2) == 0 }.encode_to_vec(),
            "Check" => wire::CheckRequest { key: self.key() }.encode_to_vec(),
            "Gc" => {
                let valid = (0..self.below(30)).filter_map(|_| self.key()).collect();
                wire::GcRequest { network: self.text(), valid }.encode_to_vec()
            }
            _ => wire::StatusRequest {}.encode_to_vec(),
        }
    }

    /// The same bytes, but for a few.
    fn damage(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
                2 => bytes.extend_from_within(at..),
                3 => bytes.extend(std::iter::repeat_n(0xff, self.below(20))),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
        bytes
    }
}

/// Sends one message; returns how it was answered.
async fn send(channel: &Channel, verb: &str, message: Vec<u8>) -> Option<Code> {
    let path: PathAndQuery = format!("/eni_cni.ipam.v1.Ipam/{verb}").parse().unwrap();
    let mut client = Grpc::new(channel.clone());
    let asked = async {
        client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
        client.unary(Request::new(message), path, Bytes).await
    };
    let answer = tokio::time::timeout(CALLER_PATIENCE, asked).await.ok()?;
    Some(answer.err().map_or(Code::Ok, |status| status.code()))
}

async fn send_raw(worker: &Worker, dice: &mut Dice) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.truncate(dice.below(bytes.len() + 1));
    bytes.extend((0..dice.below(200)).map(|_| u8::try_from(dice.below(256)).unwrap()).collect::<Vec<_>>());
    let mut stream = UnixStream::connect(worker.socket()).await.unwrap();
    // The daemon may hang up first.
    let _ = stream.write_all(&bytes).await;
}

async fn connect(worker: &Worker) -> Channel {
    Endpoint::try_from(format!("unix:{}", worker.socket().display())).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_message_the_daemon_answers_and_no_pod_loses_its_lease() {
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_EXECUTIONS", 3000));
    let cluster = ready_cluster(1, 14, &[("WARM_IP_TARGET", "14"), ("IP_COOLDOWN_PERIOD", "5")]).await;
    let worker = &cluster.workers[0];
    let sandboxes = flight::sandboxes(10).unwrap();
    flight::add(&cluster, &sandboxes).await.unwrap();
    let (before, pid) = (WorkerState::read(worker).await.unwrap(), worker.daemon_pid());

    let channel = connect(worker).await;
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first + count {
        let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
        if seed % RAW_EVERY == 0 {
            send_raw(worker, &mut dice).await;
            continue;
        }
        let verb = VERBS[dice.below(VERBS.len())];
        let mut message = dice.message(verb);
        if dice.below(2) == 0 {
            message = dice.damage(message);
        }
        let answer = send(&channel, verb, message).await;
        let internal = matches!(answer, Some(Code::Unknown));
        assert!(!internal, "repeat it with FUZZ_SEED={seed} FUZZ_EXECUTIONS=1\n{}", worker.daemon_log());
        *answers.entry(answer.map_or("gone away".to_owned(), |code| format!("{code:?}"))).or_default() += 1;
    }
    let too_long = send(&connect(worker).await, "Add", vec![0x0a; 5 << 20]).await;
    println!("{count} executions from seed {first}: {answers:?}; 5 MiB: {too_long:?}");

    // What valid messages asked for is taken back, also what came too late for its caller; then all pods are as before.
    let as_before = || async {
        for network in observe::networks(worker).await.unwrap().into_iter().filter(|network| network != NETWORK) {
            stage::client(worker).await.gc(wire::GcRequest { network, valid: vec![] }).await.unwrap();
        }
        // The pool may have grown.
        let WorkerState { rules, enis, .. } = before.clone();
        let state = WorkerState { rules, enis, ..WorkerState::read(worker).await.unwrap() };
        if state == before { Ok(()) } else { Err(format!("{state:?} instead of {before:?}")) }
    };
    wait::until(PATIENCE, "the pods as before", as_before).await.unwrap();
    assert_eq!(worker.daemon_pid(), pid);
    assert!(!worker.daemon_log().contains("panicked"), "{}", worker.daemon_log());
}
