//! What of somebody else's is in a place that is ours, or comes before. It is not ours to remove. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use eni_proto::numbers::{RULE_ENI_MARK, RULE_FROM_ENI, RULE_PRIMARY_MARK, RULE_TO_POD, eni_table};

use super::{Kind, Wanted};
use crate::{
    EniPlan, Family, eni,
    observe::HostState,
    ops::{Route, Rule},
    route::TABLE_LOCAL,
};

/// Something of somebody else's in a place that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    /// A rule of one of our priorities, and the table that it leads to. Which of two is asked first depends on which was there first.
    Priority { family: Family, priority: u32, table: u32 },
    /// A route in a table of ours that goes before our own.
    Route(Route),
}

impl Taken {
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Priority { .. } => Kind::Rule,
            Self::Route(_) => Kind::Route,
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Priority { family, priority, table } => {
                let option = if *family == Family::V6 { "-6 " } else { "" };
                write!(
                    f,
                    "a rule of priority {priority} to table {table}; see `ip {option}rule show priority {priority}`"
                )
            }
            Self::Route(Route { destination, table, link, .. }) => {
                let option = if destination.family() == Family::V6 { "-6 " } else { "" };
                write!(
                    f,
                    "a route to {destination} on link {link} in table {table}; see `ip {option}route show table {table}`"
                )
            }
        }
    }
}

/// What of somebody else's is in our places or comes before; of each priority and family one rule. `routes` are others' in our tables.
pub(super) fn taken(state: &HostState, routes: &[Route]) -> BTreeSet<Taken> {
    const OURS: [u32; 4] = [RULE_TO_POD, RULE_PRIMARY_MARK, RULE_ENI_MARK, RULE_FROM_ENI];
    let mut rules = BTreeMap::new();
    let beside = state.foreign_rules.iter().filter(|rule| OURS.contains(&rule.priority));
    // In the table of the node's own addresses nobody looks for a pod.
    let before = |rule: &&Rule| rule.priority < RULE_ENI_MARK && rule.table != TABLE_LOCAL;
    for rule in beside.chain(state.general_rules.iter().filter(before)) {
        rules.entry((rule.family, rule.priority)).or_insert(rule.table);
    }
    let priority = |((family, priority), table)| Taken::Priority { family, priority, table };
    rules.into_iter().map(priority).chain(routes.iter().copied().map(Taken::Route)).collect()
}

/// The tables of secondary ENIs.
pub(super) fn tables(wanted: &Wanted) -> impl Iterator<Item = (Family, u32)> {
    let secondary = wanted.enis.values().filter(|(plan, _)| !plan.mark.is_primary());
    let of_families = |plan: &EniPlan| {
        let table = eni_table(plan.card, plan.device_index);
        eni::families(plan.ipv6).iter().map(move |family| (*family, table))
    };
    secondary.flat_map(move |(plan, _)| of_families(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_of_our_priorities_and_tables_once_each() {
        let rule = |priority, table| crate::ops::Rule { family: Family::V4, priority, from: None, mark: None, table };
        let foreign_rules = vec![rule(0, 255), rule(512, 77), rule(512, 78), rule(700, 77), rule(32766, 254)];
        let general_rules = vec![rule(0, 255), rule(100, 254), rule(512, 78), rule(2000, 254)];
        let state = HostState { foreign_rules, general_rules, ..HostState::default() };
        let route = |text: &str, table| Route { table, destination: text.parse().unwrap(), gateway: None, link: 4 };
        let routes = [route("10.9.0.0/16", 2), route("::/0", 2)];
        let told: Vec<String> = taken(&state, &routes).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a rule of priority 100 to table 254; see `ip rule show priority 100`",
                "a rule of priority 512 to table 77; see `ip rule show priority 512`",
                "a route to 10.9.0.0/16 on link 4 in table 2; see `ip route show table 2`",
                "a route to ::/0 on link 4 in table 2; see `ip -6 route show table 2`",
            ]
        );
    }
}
