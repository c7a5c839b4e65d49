//! How our table looks, to tell whether anybody but us changed it.

use eni_proto::numbers::{NFT_BY_MAIN_SET, NFT_DIRECT_SET, NFT_TABLE};
use nix::errno::Errno;

use super::{
    Nft, NftError,
    encode::{self, chain_request},
    stay,
    table::HOOKED,
};
use crate::{Family, attributes};

/// How many others use a table or chain, which changes with every pod: kind of the attribute.
const USE_OF_TABLE: u16 = 3;
const USE_OF_CHAIN: u16 = 6;

/// Table, hooked chains, all rules and the sets of networks, as the kernel tells them, without the pods' map.
///
/// Handles are part of it, so that a rule that somebody replaced by the same one is another rule.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Picture {
    main: Parts,
    /// The last gate.
    stay: Parts,
}

impl Picture {
    /// Whether there is no table with the pods' map.
    pub(crate) const fn is_empty(&self) -> bool {
        self.main.is_empty()
    }
}

impl Nft {
    /// Looks at the tables of both families.
    pub(crate) fn pictures(&mut self) -> Result<[Picture; 2], NftError> {
        Ok([self.picture(Family::V4)?, self.picture(Family::V6)?])
    }

    /// Looks at the tables; of an absent one there is nothing.
    fn picture(&mut self, family: Family) -> Result<Picture, NftError> {
        let dumps = [
            encode::rules_request(family, NFT_TABLE),
            encode::elements_request(family, NFT_TABLE, NFT_DIRECT_SET),
            encode::elements_request(family, NFT_TABLE, NFT_BY_MAIN_SET),
        ];
        let main = self.parts(family, NFT_TABLE, &HOOKED, &dumps)?;
        let stay = self.parts(family, stay::TABLE, &[stay::CHAIN], &[encode::rules_request(family, stay::TABLE)])?;
        Ok(Picture { main, stay })
    }

    fn parts(
        &mut self,
        family: Family,
        table: &str,
        chains: &[&str],
        dumps: &[(u16, Vec<u8>)],
    ) -> Result<Parts, NftError> {
        let mut requests = vec![encode::table_request(family, table)];
        requests.extend(chains.iter().map(|chain| chain_request(family, table, chain)));
        let unstable = [USE_OF_TABLE].into_iter().chain(std::iter::repeat(USE_OF_CHAIN));
        let mut parts = Vec::new();
        for (reply, unstable) in self.0.exchange(&requests)?.into_iter().zip(unstable) {
            parts.extend(
                told(reply.result, reply.data)?.into_iter().map(|(kind, part)| (kind, without(&part, unstable))),
            );
        }
        for (kind, payload) in dumps {
            let reply = self.0.dump(*kind, payload)?;
            parts.extend(told(reply.result, reply.data)?);
        }
        Ok(parts)
    }
}

type Parts = Vec<(u16, Vec<u8>)>;

/// Without the header of each message, which tells the number of the last transaction.
fn told(result: Result<(), crate::Refusal>, data: Parts) -> Result<Parts, NftError> {
    match result {
        Ok(()) => {
            let body = |payload: Vec<u8>| payload.get(encode::FAMILY_HEADER..).unwrap_or_default().to_vec();
            Ok(data.into_iter().map(|(kind, payload)| (kind, body(payload))).collect())
        }
        Err(refusal) if refusal.errno == Errno::ENOENT => Ok(Vec::new()),
        Err(source) => Err(NftError::Refused { step: "look at the table".to_owned(), source }),
    }
}

fn without(part: &[u8], unstable: u16) -> Vec<u8> {
    let kept = attributes::read(part).filter(|(kind, _)| *kind != unstable);
    kept.fold(attributes::Attributes::new(), |all, (kind, value)| all.bytes(kind, value)).into_bytes()
}
