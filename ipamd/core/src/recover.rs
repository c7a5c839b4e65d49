//! What a restart may believe: compares the record, the kernel, the sandbox and EC2 for one address.

/// What one source says. A source that could not be read says nothing, and nothing is ever removed on its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Says {
    /// It is there.
    Yes,
    /// It is not there.
    No,
    /// The source could not be read, or may be out of date.
    Unknown,
}

/// What the four sources say of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Our database has a lease.
    pub record: Says,
    /// The kernel has a host interface with this address in its alias.
    pub kernel: Says,
    /// The sandbox's network namespace exists.
    pub sandbox: Says,
    /// EC2 lists the address on an ENI of this node.
    pub on_eni: Says,
}

/// What to do about one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// All agree: go on as before.
    Adopt,
    /// The pod lost its network: keep the lease, never hand the address out, tell people.
    KeepImpaired,
    /// The sandbox is gone: remove what is left in the kernel and let the address rest.
    ReleaseAndCool,
    /// EC2 does not list what a pod uses: keep it, ask EC2 again, do not reuse.
    KeepAskEc2,
    /// The database lost it: make a record from what the kernel says.
    AdoptFromKernel,
    /// Nobody owns what the kernel still has: remove it and let the address rest.
    RemoveLeftovers,
    /// Nobody uses it.
    Free,
    /// A source is missing: change nothing for this address.
    Nothing,
}

/// Decides for one address.
#[must_use]
pub const fn decide(evidence: Evidence) -> Decision {
    use Says::{No, Unknown, Yes};
    match (evidence.record, evidence.kernel, evidence.sandbox, evidence.on_eni) {
        (Unknown, ..) | (_, Unknown, ..) => Decision::Nothing,
        (No, No, ..) => Decision::Free,
        (_, _, Unknown, _) | (_, _, _, Unknown) => Decision::Nothing,
        (Yes, Yes, Yes, Yes) => Decision::Adopt,
        (Yes, No, Yes, Yes) => Decision::KeepImpaired,
        (Yes, _, No, _) => Decision::ReleaseAndCool,
        (_, _, Yes, No) => Decision::KeepAskEc2,
        (No, Yes, Yes, Yes) => Decision::AdoptFromKernel,
        (No, Yes, No, _) => Decision::RemoveLeftovers,
    }
}

#[cfg(test)]
mod tests {
    use super::{Says::*, *};

    fn all(record: &[Says], kernel: &[Says], sandbox: &[Says], on_eni: &[Says]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for &record in record {
            for &kernel in kernel {
                for &sandbox in sandbox {
                    for &on_eni in on_eni {
                        decisions.push(decide(Evidence { record, kernel, sandbox, on_eni }));
                    }
                }
            }
        }
        decisions.dedup();
        decisions
    }

    #[test]
    fn each_row_of_the_recovery_table_has_its_decision() {
        #[rustfmt::skip]
        let table = [
            (all(&[Yes], &[Yes], &[Yes], &[Yes]), Decision::Adopt),
            (all(&[Yes], &[No], &[Yes], &[Yes]), Decision::KeepImpaired),
            (all(&[Yes], &[Yes, No], &[No], &[Yes, No]), Decision::ReleaseAndCool),
            (all(&[Yes], &[Yes, No], &[Yes], &[No]), Decision::KeepAskEc2),
            (all(&[No], &[Yes], &[Yes], &[No]), Decision::KeepAskEc2),
            (all(&[No], &[Yes], &[Yes], &[Yes]), Decision::AdoptFromKernel),
            (all(&[No], &[Yes], &[No], &[Yes, No]), Decision::RemoveLeftovers),
            (all(&[No], &[No], &[Yes, No, Unknown], &[Yes, No, Unknown]), Decision::Free),
        ];
        for (row, (decisions, wanted)) in table.into_iter().enumerate() {
            assert_eq!(decisions, [wanted], "row {row}");
        }
    }

    /// I12.
    #[test]
    fn a_stale_source_never_causes_a_removal() {
        let any = [Yes, No, Unknown];
        for record in any {
            for kernel in any {
                for sandbox in any {
                    for on_eni in any {
                        let evidence = Evidence { record, kernel, sandbox, on_eni };
                        let removes = matches!(decide(evidence), Decision::ReleaseAndCool | Decision::RemoveLeftovers);
                        let stale = [record, kernel, sandbox, on_eni].contains(&Unknown);
                        assert!(!(removes && stale), "{evidence:?}");
                    }
                }
            }
        }
    }
}
