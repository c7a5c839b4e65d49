//! Reservations of ranges of a subnet on the wire.

use super::{Wire, params::Params, tags::write_tags, xml::Xml};
use crate::{
    ACCOUNT, ApiError,
    action::{CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations},
    world::{
        Page, cidr,
        model::{CidrReservation, ReservationKind},
    },
};

impl Wire for CreateSubnetCidrReservation {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let kind = match params.required("ReservationType")?.as_str() {
            "prefix" => ReservationKind::Prefix,
            "explicit" => ReservationKind::Explicit,
            other => {
                return Err(ApiError::invalid_value(format!(
                    "Value ({other}) for parameter reservationType is invalid."
                )));
            }
        };
        Ok(Self {
            subnet: params.required("SubnetId")?,
            cidr: params.required("Cidr")?,
            kind,
            description: params.owned("Description").unwrap_or_default(),
            tags: params.tags_for("subnet-cidr-reservation")?,
        })
    }

    fn write(made: &CidrReservation, xml: &mut Xml) {
        xml.element("subnetCidrReservation", |xml| write(made, xml));
    }
}

impl Wire for DeleteSubnetCidrReservation {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { reservation: params.required("SubnetCidrReservationId")? })
    }

    fn write(gone: &CidrReservation, xml: &mut Xml) {
        xml.element("deletedSubnetCidrReservation", |xml| write(gone, xml));
    }
}

impl Wire for GetSubnetCidrReservations {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { subnet: params.required("SubnetId")?, filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<CidrReservation>, xml: &mut Xml) {
        xml.list("subnetIpv4CidrReservationSet", &page.items, |xml, found| write(found, xml));
        xml.next_token(page.next_token.as_deref());
    }
}

fn write(reservation: &CidrReservation, xml: &mut Xml) {
    xml.leaf("subnetCidrReservationId", &reservation.id);
    xml.leaf("subnetId", &reservation.subnet);
    xml.leaf("cidr", cidr::text(reservation.cidr));
    xml.leaf("reservationType", reservation.kind.name());
    xml.leaf("ownerId", ACCOUNT);
    xml.leaf("description", &reservation.description);
    write_tags(&reservation.tags, xml);
}
