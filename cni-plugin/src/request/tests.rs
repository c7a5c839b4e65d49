use super::*;

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"pods","type":"eni-cni"}"#;

fn asked(verb: Verb, environment: &[(&str, &str)], stdin: &str) -> Result<Request, CniError> {
    let lookup = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned());
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
    let error = asked(Verb::Add, &[("CNI_CONTAINERID", "c1")], config).unwrap_err();
    for part in ["CNI_NETNS", "9.9.9", "`name`", "`socket`", "`addWaitSeconds`", "`vethPrefix`"] {
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
        (Verb::Check,  r#"{"cniVersion":"0.3.1","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow Check"),
        (Verb::Gc,     r#"{"cniVersion":"1.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow Gc"),
        (Verb::Status, r#"{"cniVersion":"1.0.0","name":"n"}"#,                          code::INCOMPATIBLE_VERSION, "does not allow Status"),
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
