//! Ranges of a subnet that are set apart, for prefixes or for what is asked for by name.

use ipam_core::SubnetId;

use crate::{
    Action, ApiError,
    action::tags,
    world::{
        Filter, Page, Paging, State, cidr,
        filter::Filterable,
        lookup,
        model::{CidrReservation, ReservationId, ReservationKind, Tags},
        space::PREFIX_LENGTH,
    },
};

/// Sets a range of a subnet apart. What is in use there stays in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSubnetCidrReservation {
    /// The subnet.
    pub subnet: String,
    /// The range.
    pub cidr: String,
    /// What for.
    pub kind: ReservationKind,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: Tags,
}

impl Action for CreateSubnetCidrReservation {
    const NAME: &'static str = "CreateSubnetCidrReservation";
    type Answer = CidrReservation;

    fn apply(&self, state: &mut State) -> Result<CidrReservation, ApiError> {
        let subnet = lookup::find(&state.subnets, &self.subnet)?;
        let invalid = || ApiError::invalid_value(format!("Value ({}) for parameter cidr is invalid.", self.cidr));
        let cidr = cidr::parse(&self.cidr).filter(|cidr| cidr::text(*cidr) == self.cidr).ok_or_else(invalid)?;
        let too_small = self.kind == ReservationKind::Prefix && cidr.prefix > PREFIX_LENGTH;
        if too_small || !cidr::contains(subnet.cidr, cidr) {
            return Err(invalid());
        }
        let mut others = state.reservations.values().filter(|other| other.subnet == subnet.id);
        if others.any(|other| cidr::overlap(other.cidr, cidr)) {
            return Err(ApiError::invalid_value(format!("{} overlaps another reservation", self.cidr)));
        }
        tags::check(&Tags::new(), &self.tags)?;
        let subnet = subnet.id.clone();
        let id: ReservationId = state.new_id();
        let (description, tags) = (self.description.clone(), self.tags.clone());
        let made = CidrReservation { id: id.clone(), subnet: subnet.clone(), cidr, kind: self.kind, description, tags };
        state.reservations.insert(id, made.clone());
        apply_all(state, &subnet);
        Ok(made)
    }
}

/// Takes a reservation back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteSubnetCidrReservation {
    /// Which.
    pub reservation: String,
}

impl Action for DeleteSubnetCidrReservation {
    const NAME: &'static str = "DeleteSubnetCidrReservation";
    type Answer = CidrReservation;

    fn apply(&self, state: &mut State) -> Result<CidrReservation, ApiError> {
        let gone = lookup::find(&state.reservations, &self.reservation)?.clone();
        state.reservations.remove(&gone.id);
        apply_all(state, &gone.subnet);
        Ok(gone)
    }
}

/// Lists the reservations of a subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetSubnetCidrReservations {
    /// The subnet.
    pub subnet: String,
    /// Only what passes: `reservationType`, tags.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for GetSubnetCidrReservations {
    const NAME: &'static str = "GetSubnetCidrReservations";
    type Answer = Page<CidrReservation>;

    fn apply(&self, state: &mut State) -> Result<Page<CidrReservation>, ApiError> {
        self.paging.check(5..=1000, false)?;
        let subnet = &lookup::find(&state.subnets, &self.subnet)?.id;
        let found = super::select(&state.reservations, &[], &self.filters)?;
        Ok(self.paging.cut(found.into_iter().filter(|found| found.subnet == *subnet), |found| found.id.clone()))
    }
}

fn apply_all(state: &mut State, subnet: &SubnetId) {
    let of_subnet: Vec<_> = state.reservations.values().filter(|one| one.subnet == *subnet).cloned().collect();
    state.in_space(subnet, |space| space.reserve(of_subnet.iter()));
}

impl Filterable for CidrReservation {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "reservationType" => self.kind.name().to_owned(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
