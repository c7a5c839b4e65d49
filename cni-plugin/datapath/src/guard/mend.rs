//! Makes right what a look has found wrong.

use std::{collections::BTreeMap, io};

use eni_proto::{EniMark, Pod, VethPrefix, host_link_name};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    Wanted,
    compare::{self, Element, Remedy, primary},
};
use crate::{
    Family, SysctlError,
    apply::is_already,
    eni::{self, families},
    host,
    nft::{
        Nft, Picture, PodMap,
        encode::{Change, Step},
        stay,
    },
    observe::HostState,
    ops::Op,
    route,
    socket::NetlinkSocket,
};

/// Messages in one send: their answers must fit into the socket's receive buffer.
const BATCH: usize = 64;

/// Why something was not mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotDone {
    Refused(String),
    /// Somebody changed nf_tables after the look: the next one decides.
    Meanwhile,
}

impl<E: std::error::Error> From<E> for NotDone {
    fn from(error: E) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Our table at one generation of nf_tables.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) generation: u32,
    pub(super) map: PodMap,
    pub(super) pictures: [Picture; 2],
}

pub(super) const fn at(family: Family) -> usize {
    family as usize
}

/// What reaches into the kernel.
pub(super) struct Hands {
    pub(super) socket: NetlinkSocket,
    pub(super) nft: Nft,
    /// First characters of the names of pods' links.
    pub(super) prefix: VethPrefix,
}

impl Hands {
    pub(super) fn open(prefix: &VethPrefix) -> io::Result<Self> {
        let nft = Nft::open().map_err(io::Error::other)?;
        Ok(Self { socket: NetlinkSocket::open(NETLINK_ROUTE)?, nft, prefix: prefix.clone() })
    }

    /// Returns why some of them could not be mended.
    pub(super) fn mend(
        &mut self,
        due: &[Remedy],
        wanted: &mut Wanted,
        state: &HostState,
        seen: &Seen,
    ) -> BTreeMap<Remedy, NotDone> {
        let mut refused = BTreeMap::new();
        let mut ops = Vec::new();
        let mut pods = Vec::new();
        // Our own transactions do not make what was seen stale.
        let mut seen = seen.clone();
        for remedy in due {
            let outcome = match remedy {
                Remedy::Op(op) => {
                    ops.push(*op);
                    continue;
                }
                Remedy::Pod(element) => {
                    pods.push(*element);
                    continue;
                }
                Remedy::Name(link) => self.rename(*link, state),
                Remedy::Label(link) => self.label(*link, state),
                Remedy::Table(family) => self.mend_table(*family, wanted, state, &mut seen),
                Remedy::Settings => set_up(wanted, state).map_err(NotDone::from),
                Remedy::EniSettings(link) => set_up_eni(wanted, state, *link).map_err(NotDone::from),
                Remedy::ReversePathOfAll => relax(wanted).map_err(NotDone::from),
            };
            refused.extend(outcome.err().map(|why| (*remedy, why)));
        }
        refused.extend(self.mend_ops(&ops));
        refused.extend(self.mend_pods(&pods, &seen));
        refused
    }

    fn mend_ops(&mut self, ops: &[Op]) -> Vec<(Remedy, NotDone)> {
        let messages: Vec<_> = ops.iter().copied().map(route::mend_message).collect();
        let mut refused = Vec::new();
        for (ops, messages) in ops.chunks(BATCH).zip(messages.chunks(BATCH)) {
            match self.socket.exchange(messages) {
                Err(error) => {
                    refused.extend(ops.iter().map(|op| (Remedy::Op(*op), NotDone::Refused(error.to_string()))))
                }
                Ok(replies) => refused.extend(ops.iter().zip(replies).filter_map(|(op, reply)| {
                    let refusal = reply.result.err().filter(|refusal| !is_already(*op, refusal.errno))?;
                    Some((Remedy::Op(*op), refusal.into()))
                })),
            }
        }
        refused
    }

    /// All at once; one by one when the kernel does not like one of them, as where somebody's element is in the place of ours.
    fn mend_pods(&mut self, pods: &[Element], seen: &Seen) -> Vec<(Remedy, NotDone)> {
        if pods.is_empty() {
            return Vec::new();
        }
        let change = |&Element { address, mark, .. }: &Element| {
            let remove = seen.map.contains_key(&address).then_some(Change::RemovePod { address });
            let add = mark.map(|mark| Change::AddPod { address, mark });
            remove.into_iter().chain(add).map(|change| (Family::of(address), change)).collect::<Vec<_>>()
        };
        let all: Vec<Step> = pods.iter().flat_map(change).collect();
        match self.nft.commit_since(seen.generation, &all) {
            Ok(true) => return Vec::new(),
            Ok(false) => return pods.iter().map(|pod| (Remedy::Pod(*pod), NotDone::Meanwhile)).collect(),
            Err(_) => {}
        }
        let mut one = |&Element { address, mark, .. }: &Element| match mark {
            Some(mark) => self.nft.add_pod([address], mark),
            None => self.nft.remove_pod(address).map(drop),
        };
        pods.iter().filter_map(|pod| Some((Remedy::Pod(*pod), one(pod).err()?.into()))).collect()
    }

    /// The name that its label says; where an older version wrote that, the one of a pod that nobody knows.
    fn rename(&mut self, index: u32, state: &HostState) -> Result<(), NotDone> {
        let Some((_, alias)) = state.labelled().find(|(link, _)| link.index == index) else { return Ok(()) };
        let unnamed = || host_link_name(&self.prefix, &alias.key, &Pod::default());
        let name = alias.name.as_ref().map_or_else(unnamed, |name| name.with(&self.prefix));
        self.socket.ask(route::rename_link(index, &name))?.result.map_err(NotDone::from)
    }

    fn label(&mut self, index: u32, state: &HostState) -> Result<(), NotDone> {
        let Some(link) = state.links.iter().find(|link| link.index == index) else { return Ok(()) };
        self.socket.ask(route::relabel_link(index, &link.alias))?.result.map_err(NotDone::from)
    }

    fn mend_table(
        &mut self,
        family: Family,
        wanted: &mut Wanted,
        state: &HostState,
        seen: &mut Seen,
    ) -> Result<(), NotDone> {
        let Some((plan, link)) = primary(wanted, state) else { return Ok(()) };
        let prepared = link.clone();
        let enis = wanted.enis.values().map(|(plan, _)| plan);
        let enis = enis.filter(|plan| !plan.mark.is_primary() && families(plan.ipv6).contains(&family));
        let marks: Vec<EniMark> = enis.map(|plan| plan.mark).collect();
        let pods = seen.pictures[at(family)].is_empty().then(|| compare::elements(state));
        let shape = host::shape(plan, link, family);
        if !host::mend_table(&mut self.nft, seen.generation, &shape, &marks, pods.as_ref())? {
            return Err(NotDone::Meanwhile);
        }
        seen.generation = seen.generation.wrapping_add(1);
        let plan = plan.clone();
        if let Some(gate) = &mut wanted.gate {
            let made = stay::ensure(gate, &host::shape(&plan, &prepared, family), stay::Owner::Socket)?;
            seen.generation = seen.generation.wrapping_add(made.into());
        }
        // The tables of both families are found wrong by a new name; each is written by itself.
        let pictures = self.nft.pictures()?;
        wanted.pictures[at(family)].clone_from(&pictures[at(family)]);
        wanted.names[at(family)] = prepared.name;
        host::begin_anew(&plan, family, state);
        Ok(())
    }
}

fn set_up(wanted: &Wanted, state: &HostState) -> Result<(), SysctlError> {
    primary(wanted, state).map_or(Ok(()), |(plan, link)| host::ensure_settings(plan, &link.name))
}

fn set_up_eni(wanted: &Wanted, state: &HostState, index: u32) -> Result<(), SysctlError> {
    let of_link = compare::enis(wanted, state).find(|(_, link)| link.index == index);
    of_link.map_or(Ok(()), |(plan, link)| eni::ensure_settings(plan, &link.name))
}

fn relax(wanted: &Wanted) -> Result<(), SysctlError> {
    wanted.host.as_ref().map_or(Ok(()), |(plan, _)| host::relax_reverse_path_of_all(plan))
}
