//! Who held which address when: how it is shown.

use std::{path::Path, process::ExitCode};

use serde_json::json;

use crate::{
    clock::{self, rfc3339},
    errors::{chain, complain},
    store::{self, StoreError},
    table::{self, lay_out},
    tenure::{Question, Tenure},
};

/// Answers from the database at `path`, whether a daemon uses it or not.
pub(crate) async fn show(path: &Path, question: &Question, as_json: bool) -> ExitCode {
    match store::tenures(path, question).await {
        Ok(tenures) => {
            table::show(&if as_json { lines_of_json(&tenures) } else { as_table(&tenures) }, as_json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{}{}", chain(&error), advice(&error)));
            ExitCode::FAILURE
        }
    }
}

/// All that is known, as JSON; in words why nothing is.
pub(crate) async fn recent(path: &Path) -> String {
    match store::tenures(path, &Question::default()).await {
        Ok(tenures) => lines_of_json(&tenures),
        Err(error) => format!("{}\n", chain(&error)),
    }
}

const fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Open { .. } => ". Has `ipamd serve` ever run here? --database names another file.",
        StoreError::Damaged { .. } => ". A daemon of this version makes the history's table when it starts.",
        StoreError::Newer { .. } | StoreError::Write(_) | StoreError::Stopped => "",
    }
}

/// One object a line. `interface-id`, `pkt-srcaddr`, `start` and `end` have names and units of VPC flow logs: a record belongs to
/// the line with the same interface and address whose times overlap. `end` is null while the lease runs.
fn lines_of_json(tenures: &[Tenure]) -> String {
    tenures.iter().map(|tenure| format!("{}\n", object(tenure))).collect()
}

fn object(tenure: &Tenure) -> serde_json::Value {
    json!({
        "interface-id": tenure.eni,
        "pkt-srcaddr": tenure.address,
        "start": tenure.since.as_millis() / 1000,
        "end": tenure.ended.as_ref().map(|(at, _)| at.as_millis().div_ceil(1000)),
        "namespace": tenure.namespace,
        "pod": tenure.pod,
        "uid": tenure.uid,
        "network": tenure.network,
        "container-id": tenure.container_id,
        "interface": tenure.interface,
        "ended-by": tenure.ended.as_ref().map(|(_, why)| why),
    })
}

fn as_table(tenures: &[Tenure]) -> String {
    let heading = ["ADDRESS", "ENI", "POD", "SINCE", "UNTIL", "ENDED BY", "SANDBOX"];
    lay_out(heading, tenures.iter().map(row), table::columns())
}

fn row(tenure: &Tenure) -> [String; 7] {
    let (until, by) = match &tenure.ended {
        Some((at, why)) => (rfc3339(*at), why.clone()),
        None => ("now".to_owned(), "-".to_owned()),
    };
    let sandbox: String = tenure.container_id.chars().take(12).collect();
    [
        tenure.address.clone(),
        tenure.eni.clone(),
        format!("{}/{}", tenure.namespace, tenure.pod),
        clock::rfc3339(tenure.since),
        until,
        by,
        format!("{sandbox}/{}", tenure.interface),
    ]
}

#[cfg(test)]
mod tests {
    use ipam_core::Moment;

    use super::*;

    fn tenure(ended: Option<(Moment, String)>) -> Tenure {
        Tenure {
            address: "10.0.3.7".to_owned(),
            eni: "eni-0a1b".to_owned(),
            namespace: "web".to_owned(),
            pod: "shop-7d9f".to_owned(),
            uid: "u1".to_owned(),
            network: "pods".to_owned(),
            container_id: "0123456789abcdef".to_owned(),
            interface: "eth0".to_owned(),
            since: Moment::from_millis(1_795_270_927_001),
            ended,
        }
    }

    #[test]
    fn json_has_the_names_and_units_of_flow_logs_and_covers_the_whole_time() {
        let ended = Some((Moment::from_millis(1_795_270_930_001), "gc".to_owned()));
        let lines = lines_of_json(&[tenure(ended), tenure(None)]);
        let [first, second] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        assert_eq!(
            first,
            r#"{"interface-id":"eni-0a1b","pkt-srcaddr":"10.0.3.7","start":1795270927,"end":1795270931,"namespace":"web","pod":"shop-7d9f","uid":"u1","network":"pods","container-id":"0123456789abcdef","interface":"eth0","ended-by":"gc"}"#
        );
        assert!(second.contains(r#""end":null"#), "{second}");
    }

    #[test]
    fn the_table_is_for_people() {
        assert_eq!(
            as_table(&[tenure(None)]),
            "ADDRESS   ENI       POD            SINCE                 UNTIL  ENDED BY  SANDBOX\n\
             10.0.3.7  eni-0a1b  web/shop-7d9f  2026-11-21T14:22:07Z  now    -         0123456789ab/eth0\n"
        );
    }
}
