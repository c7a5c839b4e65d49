//! What pods' links were like when they were seen first, so that what others take from them can be given back: the label, which is all
//! that says what is wanted of a pod, and the MTU, which the label does not say.

use std::collections::BTreeMap;

use eni_proto::LinkAlias;

use super::compare::{Deviation, Remedy};
use crate::{
    MacAddress,
    observe::HostState,
    ops::{Op, Setting},
    pod::{ended_alias, host_mac},
    route::Link,
};

/// By index of the link.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<u32, Pod>);

#[derive(Debug)]
struct Pod {
    label: String,
    mac: MacAddress,
    mtu: u32,
}

impl Pod {
    fn mtu_of(&self, link: &Link) -> Option<Remedy> {
        let to = Setting::Mtu(self.mtu);
        (link.mtu != self.mtu).then_some(Remedy::Op(Op::Set { link: link.index, from: to, to }))
    }
}

impl Known {
    /// Returns what others changed of pods' links; in `state` each has its own label again.
    pub(super) fn compare(&mut self, state: &mut HostState) -> Vec<Deviation> {
        self.0.retain(|index, _| state.links.iter().any(|link| link.index == *index));
        let veths = state.links.iter_mut().filter(|link| link.kind == "veth");
        let remedies = veths.flat_map(|link| self.compare_link(link));
        remedies.map(|remedy| Deviation { remedy, passing: true }).collect()
    }

    fn compare_link(&mut self, link: &mut Link) -> Vec<Remedy> {
        // Of each of some hundred links the label is read once.
        if let Some(known) = self.0.get(&link.index).filter(|known| known.label == link.alias) {
            return known.mtu_of(link).into_iter().collect();
        }
        if let Ok(alias) = link.alias.parse::<LinkAlias>() {
            let mac = alias.adopted_mac.map_or_else(|| host_mac(&alias.key), MacAddress);
            let mtu = self.0.get(&link.index).filter(|known| known.mac == mac).map_or(link.mtu, |known| known.mtu);
            let known = Pod { label: link.alias.clone(), mac, mtu };
            let remedy = known.mtu_of(link);
            self.0.insert(link.index, known);
            return remedy.into_iter().collect();
        }
        if ended_alias(link).is_some() {
            self.0.remove(&link.index);
        }
        let Some(known) = self.0.get(&link.index).filter(|known| Some(known.mac) == link.mac) else {
            return Vec::new();
        };
        link.alias.clone_from(&known.label);
        vec![Remedy::Label(link.index)]
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use eni_proto::{EniMark, PodKey};

    use super::*;

    fn link(alias: &str, mtu: u32) -> Link {
        let mac = Some(host_mac(&PodKey::new("pods", "c1", "eth0").unwrap()));
        Link { index: 7, mtu, mac, alias: alias.to_owned(), kind: "veth".to_owned(), ..Link::default() }
    }

    fn found(known: &mut Known, link: Link) -> (Vec<String>, String) {
        let mut state = HostState { links: vec![link], ..HostState::default() };
        let deviations = known.compare(&mut state);
        (deviations.iter().map(|it| it.remedy.to_string()).collect(), state.links.remove(0).alias)
    }

    #[test]
    fn a_label_that_others_took_is_given_back_and_what_has_ended_is_let_go() {
        let key = PodKey::new("pods", "c1", "eth0").unwrap();
        let addresses = Ipv4Addr::new(10, 0, 1, 7).into();
        let eni_mark = EniMark::of_device(1);
        let label = LinkAlias { key, addresses, eni_mark, adopted_mac: None, name: None }.to_string();
        let mut known = Known::default();
        assert_eq!(found(&mut known, link("", 9001)), (vec![], String::new()), "never seen with one");
        assert_eq!(found(&mut known, link(&label, 9001)), (vec![], label.clone()));
        assert_eq!(found(&mut known, link("uplink", 9001)), (vec!["label link 7 again".to_owned()], label.clone()));
        assert_eq!(found(&mut known, link(&label, 1400)), (vec!["set mtu 9001 on link 7".to_owned()], label.clone()));
        let other = Link { mac: Some(MacAddress([2; 6])), ..link("", 9001) };
        assert_eq!(found(&mut known, other), (vec![], String::new()), "another link by the same index");
        let ended = format!("ended {label}");
        assert_eq!(found(&mut known, link(&ended, 9001)), (vec![], ended));
        assert_eq!(found(&mut known, link("", 9001)), (vec![], String::new()));
    }
}
