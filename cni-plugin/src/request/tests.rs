use super::*;

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"eni-cni"}"#;

fn asked(verb: Verb, environment: &[(&str, &str)], stdin: &str) -> Result<Request, CniError> {
    let lookup = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, text)| OsString::from(text));
    read(verb, lookup, stdin.as_bytes())
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
    let attachment = request.attachment.unwrap();
    assert_eq!(attachment.key.to_string(), "pods/c1/eth0");
    assert_eq!(attachment.pod, Pod { namespace: "default".into(), name: "web-0".into(), uid: "u".into() });
    assert_eq!(request.config.socket, numbers::DEFAULT_SOCKET);
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
    assert_eq!(request.attachment.unwrap().netns, None);
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
    let config = r#"{"cniVersion":"1.0.0","name":"n","addWaitSeconds":"long","prevResult":7}"#;
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
        (Verb::Add,    r#"{"name":"n"}"#,                                               code::INCOMPATIBLE_VERSION, "0.1.0 is not supported"),
        (Verb::Add,    r#"{"cniVersion":"2.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"),
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
