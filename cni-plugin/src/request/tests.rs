#[path = "../../tests/stage/generate.rs"]
mod generate;

use std::{collections::BTreeMap, ffi::OsString, net::Ipv4Addr};

use eni_proto::numbers;
use serde_json::json;

use super::*;

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"eni-cni"}"#;

fn asked(verb: Verb, environment: &[(&str, &str)], stdin: &str) -> Result<Request, CniError> {
    let lookup = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, text)| OsString::from(text));
    read(verb, lookup, stdin.as_bytes())
}

fn attachment(request: Request) -> Attachment {
    match request.task {
        Task::Add(attachment) | Task::Del(attachment) | Task::Check(attachment, _) => attachment,
        task @ (Task::Gc(_) | Task::Status) => panic!("{task:?}"),
    }
}

const FULL: &[(&str, &str)] = &[
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/x"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_ARGS", "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default;Other=x"),
];

#[test]
fn a_full_request_is_read_with_the_pod_from_arguments_in_any_order() {
    let request = asked(Verb::Add, FULL, CONFIG).unwrap();
    assert_eq!(request.config.socket, numbers::DEFAULT_SOCKET);
    let attachment = attachment(request);
    assert_eq!(attachment.key.to_string(), "pods/c1/eth0");
    assert_eq!(attachment.pod, Pod { namespace: "default".into(), name: "web-0".into(), uid: "u".into() });
}

#[test]
fn a_pod_asks_for_several_interfaces_by_its_annotation_and_by_one_value_only() {
    let wants = |annotations: serde_json::Value| {
        let runtime = json!({ numbers::ANNOTATIONS_CAPABILITY: annotations });
        let config = json!({"cniVersion": "1.0.0", "name": "pods", "type": "eni-cni", "runtimeConfig": runtime});
        attachment(asked(Verb::Add, FULL, &config.to_string()).unwrap()).multi_nic
    };
    assert!(wants(json!({"k8s.amazonaws.com/nicConfig": "multi-nic-attachment", "other": "x"})));
    let others = [
        json!({"k8s.amazonaws.com/nicConfig": "all"}),
        json!({"k8s.amazonaws.com/nicConfig": ["multi-nic-attachment"]}),
        json!("multi-nic-attachment"),
        json!(null),
    ];
    assert!(others.into_iter().all(|other| !wants(other)));
}

#[test]
fn every_missing_variable_is_named() {
    let error = asked(Verb::Add, &[], CONFIG).unwrap_err();
    assert_eq!(error.code, code::INVALID_ENVIRONMENT);
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        assert!(error.msg.contains(name), "{}", error.msg);
    }
    let error = asked(Verb::Del, &[("CNI_CONTAINERID", "")], CONFIG).unwrap_err();
    assert!(error.msg.contains("CNI_CONTAINERID, CNI_IFNAME") && !error.msg.contains("CNI_NETNS"), "{}", error.msg);
}

#[test]
fn mistakes_of_environment_and_configuration_come_back_together() {
    let config = r#"{"cniVersion":"9.9.9","name":"a b","socket":"here","addWaitSeconds":-1,"vethPrefix":"vlan"}"#;
    let environment = [("CNI_CONTAINERID", "-x"), ("CNI_IFNAME", "a/b")];
    let error = asked(Verb::Add, &environment, config).unwrap_err();
    for part in [
        "CNI_NETNS",
        "CNI_CONTAINERID: ",
        "CNI_IFNAME: ",
        "9.9.9",
        "`name`",
        "`socket`",
        "`addWaitSeconds`",
        "`vethPrefix`",
    ] {
        assert!(error.msg.contains(part), "{part}: {}", error.msg);
    }
}

#[test]
fn a_del_needs_no_namespace() {
    let request =
        asked(Verb::Del, &[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")], CONFIG).unwrap();
    assert_eq!(attachment(request).netns, None);
}

#[test]
fn each_mistake_is_told_once() {
    let error = asked(Verb::Add, FULL, r#"{"cniVersion":"1.0.0"}"#).unwrap_err();
    assert_eq!(error.msg, "`name` is null: give a network name that matches [A-Za-z0-9][A-Za-z0-9_.-]*");
    let error = asked(Verb::Add, &[("CNI_CONTAINERID", "-x"), ("CNI_NETNS", "/n")], "{").unwrap_err();
    for part in ["not set: CNI_IFNAME; ", "container id `-x`", "cannot be read"] {
        assert_eq!(error.msg.matches(part).count(), 1, "{part}: {}", error.msg);
    }
}

#[test]
fn a_del_does_not_fail_for_a_setting_that_it_does_not_need() {
    let config = r#"{"cniVersion":"1.0.0","name":"n","addWaitSeconds":"long","vethPrefix":7,"prevResult":7,"runtimeConfig":{"ips":["10.0.0.9"]}}"#;
    assert!(asked(Verb::Del, FULL, config).is_ok());
}

#[test]
fn text_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let lookup = |name: &str| match name {
        "CNI_IFNAME" => Some(OsString::from_vec(vec![b'e', 0xff])),
        "CNI_CONTAINERID" | "CNI_NETNS" => Some("c1".into()),
        _ => None,
    };
    let error = read(Verb::Add, lookup, CONFIG.as_bytes()).unwrap_err();
    assert_eq!(error.code, code::INVALID_ENVIRONMENT);
    assert!(error.msg.starts_with("CNI_IFNAME is not UTF-8"), "{}", error.msg);
}

#[test]
fn each_kind_of_bad_configuration_has_its_code() {
    #[rustfmt::skip]
    let table = [
        (Verb::Add,    "",                                                              code::UNDECODABLE,          "it is empty"),
        (Verb::Add,    "{",                                                             code::UNDECODABLE,          "cannot be read"),
        (Verb::Add,    "[]",                                                            code::UNDECODABLE,          "not a JSON object"),
        (Verb::Add,    r#"{"cniVersion":"1.0.0"}"#,                                     code::INVALID_CONFIG,       "`name`"),
        (Verb::Add,    r#"{"cniVersion":1,"name":"n"}"#,                                code::INVALID_CONFIG,       "`cniVersion` is 1"),
        (Verb::Check,  r#"{"name":"n"}"#,                                               code::INCOMPATIBLE_VERSION, "version 0.1.0 does not allow CHECK"),
        (Verb::Add,    r#"{"cniVersion":"2.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        (Verb::Check,  r#"{"cniVersion":"0.3.1","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow CHECK"),
        (Verb::Gc,     r#"{"cniVersion":"1.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow GC"),
        (Verb::Status, r#"{"cniVersion":"1.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow STATUS"),
        (Verb::Add,    r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[]}}"#,  code::INVALID_CONFIG,       "first plugin"),
    ];
    for (verb, stdin, code, part) in table {
        let error = asked(verb, FULL, stdin).unwrap_err();
        assert_eq!(error.code, code, "{stdin}: {}", error.msg);
        assert!(error.msg.contains(part), "{stdin}: {}", error.msg);
    }
}

#[test]
fn keys_that_are_somebody_elses_are_accepted() {
    let config = r#"{"cniVersion":"1.0.0","name":"n","capabilities":{"portMappings":true},"runtimeConfig":{"PortMappings":null},
        "args":{},"dns":{},"cni.dev/x":1,"prevResult":null}"#;
    assert!(asked(Verb::Add, FULL, config).is_ok());
}

#[test]
fn names_that_the_kernel_or_the_specification_refuse_are_refused() {
    for (container, interface) in [("-x", "eth0"), ("c1", "a/b"), ("c1", "sixteen-bytes-xx"), ("c 1", "eth0")] {
        let environment = [("CNI_CONTAINERID", container), ("CNI_IFNAME", interface), ("CNI_NETNS", "/n")];
        let error = asked(Verb::Add, &environment, CONFIG).unwrap_err();
        assert_eq!(error.code, code::INVALID_ENVIRONMENT, "{container} {interface}");
    }
}

#[test]
fn a_version_that_is_absent_or_empty_is_the_first() {
    for config in [json!({ "name": "n" }), json!({ "name": "n", "cniVersion": "" })] {
        let request = asked(Verb::Add, FULL, &config.to_string()).unwrap();
        assert_eq!(request.config.version.as_str(), "0.1.0");
    }
}

#[test]
fn the_configurations_arguments_count_more_than_the_environments() {
    let config =
        json!({ "cniVersion": "1.0.0", "name": "n", "args": { "cni": { "K8S_POD_NAME": "other", "labels": [] } } });
    let pod = attachment(asked(Verb::Add, FULL, &config.to_string()).unwrap()).pod;
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "other"));
}

#[test]
fn an_address_of_the_callers_choice_is_refused_with_key_and_value() {
    let plain = json!({ "cniVersion": "1.0.0", "name": "n" });
    let with = |key: &str, value: Value| {
        let mut config = plain.clone();
        config[key] = value;
        config.to_string()
    };
    let mut arguments = FULL.to_vec();
    arguments[3] = ("CNI_ARGS", "IP=10.0.0.9;IgnoreUnknown=1");
    #[rustfmt::skip]
    let table = [
        (FULL,        with("runtimeConfig", json!({ "ips": ["10.0.0.9/24"] })),            "`runtimeConfig.ips` is [\"10.0.0.9/24\"]"),
        (FULL,        with("runtimeConfig", json!({ "IPs": ["10.0.0.9"] })),               "`runtimeConfig.IPs` is "),
        (FULL,        with("runtimeConfig", json!({ "Mac": "02:00:00:00:00:01" })),        "`runtimeConfig.Mac` is "),
        (FULL,        with("args", json!({ "cni": { "ips": ["10.0.0.9"] } })),             "`args.cni.ips` is "),
        (&*arguments, plain.to_string(),                                                  "`CNI_ARGS IP` is 10.0.0.9"),
    ];
    for (environment, config, part) in table {
        let error = asked(Verb::Add, environment, &config).unwrap_err();
        assert_eq!(error.code, code::UNSUPPORTED_FIELD, "{config}");
        assert!(error.msg.contains(part), "{config}: {}", error.msg);
        assert!(asked(Verb::Del, environment, &config).is_ok(), "{config}");
    }
}

#[test]
fn an_empty_wish_is_none() {
    for empty in [json!({ "ips": null, "mac": null }), json!({ "IPs": [], "MAC": "" }), json!(null), json!([])] {
        let config = json!({ "cniVersion": "1.0.0", "name": "n", "runtimeConfig": empty });
        assert!(asked(Verb::Add, FULL, &config.to_string()).is_ok(), "{config}");
    }
}

#[test]
fn a_list_of_valid_attachments_is_read_whole_or_not_at_all() {
    let read = |key: &str, list: Value| {
        let mut config = json!({ "cniVersion": "1.1.0", "name": "n" });
        config[key] = list;
        asked(Verb::Gc, &[], &config.to_string()).map(|request| request.task)
    };
    let list = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    let keys = vec![PodKey::new("n", "c1", "eth0").unwrap()];
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(read(key, list.clone()), Ok(Task::Gc(Some(keys.clone()))));
        assert_eq!(read(key, json!([])), Ok(Task::Gc(Some(Vec::new()))));
        assert_eq!(read(key, json!(null)), Ok(Task::Gc(None)));
        for bad in [
            json!({}),
            json!("c1"),
            json!([{ "containerID": "c1" }]),
            json!([{ "containerID": "-", "ifname": "e" }]),
            json!([7]),
        ] {
            let error = read(key, bad.clone()).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{bad}");
            assert!(error.msg.contains(key), "{bad}: {}", error.msg);
        }
    }
    assert_eq!(read("other", list), Ok(Task::Gc(None)));
}

#[test]
fn a_previous_result_is_read_as_far_as_it_is_compared() {
    let read = |previous: Value| {
        let config = json!({ "cniVersion": "1.1.0", "name": "n", "prevResult": previous });
        match asked(Verb::Check, FULL, &config.to_string()).map(|request| request.task) {
            Ok(Task::Check(_, parts)) => Ok(parts.into_iter().next().unwrap().1),
            Ok(task) => panic!("{task:?}"),
            Err(error) => Err((error.code, error.msg)),
        }
    };
    let host = json!({ "name": "eni1", "mac": "02:00:00:00:00:01", "mtu": 9001 });
    let pod = json!({ "name": "eth0", "sandbox": "/run/netns/x" });
    let previous = read(json!({
        "interfaces": [host, pod, { "name": "bwp1" }],
        "ips": [{ "address": "10.0.0.9/24", "interface": 0 }, { "address": "10.0.3.7/32", "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
    }));
    let previous = previous.unwrap();
    assert_eq!((previous.addresses, previous.default_route), (Ipv4Addr::new(10, 0, 3, 7).into(), true));
    let host = End { name: Some("eni1".into()), mac: "02:00:00:00:00:01".parse().ok(), mtu: Some(9001) };
    assert_eq!(previous.host, host);
    assert_eq!(previous.pod, End { name: Some("eth0".into()), ..End::default() });

    let ips = json!([{ "address": "10.0.3.7/32" }]);
    for routes in [json!(null), json!([]), json!([{ "dst": "0.0.0.0/0", "table": 20_002 }])] {
        assert!(!read(json!({ "interfaces": [pod], "ips": ips, "routes": routes })).unwrap().default_route);
    }
    for (bad, part) in [
        (json!(null), "`prevResult` is missing"),
        (json!({ "interfaces": null, "ips": ips }), "has no `eth0` inside a sandbox"),
        (json!({ "interfaces": [pod], "ips": [] }), "no address with /32 or /128"),
        (json!({ "interfaces": [pod], "ips": 7 }), "`prevResult.ips` is 7"),
        (json!("text"), "has no `eth0`"),
    ] {
        let (code, text) = read(bad.clone()).unwrap_err();
        assert_eq!(code, code::INVALID_CONFIG, "{bad}");
        assert!(text.contains(part), "{bad}: {text}");
    }
}

#[test]
fn interfaces_that_came_with_the_first_are_read_each_with_its_own_host_end() {
    let end = |name: &str, sandbox: &str| json!({ "name": name, "sandbox": sandbox });
    let previous = json!({
        "interfaces": [end("eni1", ""), end("eth0", "/n"), end("eni2", ""), end("mNicIf1", "/n"), end("bwp1", "")],
        "ips": [{ "address": "10.0.3.7/32", "interface": 1 }, { "address": "10.0.4.8/32", "interface": 3 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
    });
    let config = json!({ "cniVersion": "1.1.0", "name": "n", "prevResult": previous });
    let Ok(Task::Check(_, parts)) = asked(Verb::Check, FULL, &config.to_string()).map(|it| it.task) else { panic!() };
    let told: Vec<_> = parts
        .iter()
        .map(|(key, part)| (key.interface(), part.host.name.as_deref().unwrap_or_default(), part.default_route))
        .collect();
    assert_eq!(told, [("eth0", "eni1", true), ("mNicIf1", "eni2", false)]);
}

#[test]
fn no_input_makes_the_reader_panic_or_be_silent() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, count) = (number("FUZZ_SEED", 1), number("FUZZ_READS", 20_000));
    let environment: BTreeMap<String, String> =
        FULL.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let previous =
        json!({ "interfaces": [{ "name": "eth0", "sandbox": "/n" }], "ips": [{ "address": "10.0.0.1/32" }] });
    let config = json!({ "cniVersion": "1.1.0", "name": "n", "prevResult": previous, "runtimeConfig": { "ips": [] },
        "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }] });
    for seed in first..first + count {
        let request = generate::request(&mut generate::Dice::new(seed), &environment, &config, &Map::new());
        let command = request.environment.get("CNI_COMMAND").map(|verb| verb.to_string_lossy().into_owned());
        let lookup = |name: &str| request.environment.get(name).cloned();
        let read = verb(&command.unwrap_or_default()).and_then(|verb| read(verb, lookup, &request.stdin));
        if let Err(error) = read {
            assert!(error.code > 0 && error.msg.len() > 10, "seed {seed}: {error:?}");
        }
    }
}

#[test]
fn a_policy_agent_is_read_as_a_whole_and_a_wrong_one_fails_an_add_only() {
    let asked_with = |verb, agent: &serde_json::Value| {
        let config = json!({"cniVersion": "1.0.0", "name": "pods", "type": "eni-cni", "policyAgent": agent});
        asked(verb, FULL, &config.to_string()).map(|request| request.config.policy_agent)
    };
    let right = json!({"socket": "/run/npa.sock", "mode": "strict"});
    let agent = PolicyAgent { socket: "/run/npa.sock".into(), mode: eni_proto::policy::Mode::Strict };
    assert_eq!(asked_with(Verb::Add, &right).unwrap(), Some(agent));
    assert_eq!(asked_with(Verb::Add, &json!(null)).unwrap(), None);
    for wrong in
        [json!("npa.sock"), json!({"socket": "npa.sock", "mode": "strict"}), json!({"socket": "/x", "mode": 7})]
    {
        assert!(asked_with(Verb::Add, &wrong).unwrap_err().msg.contains("`policyAgent`"), "{wrong}");
        assert_eq!(asked_with(Verb::Del, &wrong).unwrap(), None, "{wrong}");
    }
}
