use eni_proto::Enforcing;

use super::{
    sources::Source,
    table::{self, Form, Unset},
    *,
};
use eni_proto::numbers;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    Settings::read(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned()))
}

#[test]
fn nothing_set_is_a_working_configuration() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.policy.warm_enis, 1);
    assert_eq!(settings.policy.max_enis, None);
    assert_eq!(settings.socket, PathBuf::from(numbers::DEFAULT_SOCKET));
}

#[test]
fn all_mistakes_come_back_together() {
    let wrong = read(&[
        ("WARM_ENI_TARGET", "many"),
        ("IP_COOLDOWN_PERIOD", "0"),
        ("MAX_ENI", "0"),
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "vlan"),
        ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "perhaps"),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "192.168.0.0/16, 10.0.0.1/8"),
        ("AWS_EXTERNAL_SERVICE_CIDRS", "everything"),
        ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "always"),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "loud"),
        ("IPAMD_SOCKET", "here.sock"),
    ])
    .unwrap_err();
    assert_eq!(wrong.0.len(), 10, "{wrong}");
    assert!(wrong.to_string().contains("WARM_ENI_TARGET=\"many\": give a whole number in 0..=15"), "{wrong}");
}

#[test]
fn modes_have_the_names_of_the_aws_cni() {
    use ipam_core::{Access, CustomNetwork, Mode, Placement};

    let policy = |pairs: &[(&str, &str)]| read(pairs).unwrap().policy;
    assert_eq!(policy(&[]), Policy::default());
    assert_eq!(policy(&[("ENABLE_PREFIX_DELEGATION", "true")]).mode, Mode::Prefixes);
    assert_eq!(policy(&[("ENABLE_SUBNET_DISCOVERY", "false")]).placement, Placement::NodeSubnet);
    assert_eq!(policy(&[("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")]).access, Access::ReadOnly);
    assert_eq!(policy(&[("ENABLE_IMDS_ONLY_MODE", "TRUE")]).access, Access::MetadataOnly);
    assert!(policy(&[("WARM_TARGET", "auto")]).warm_auto);
    assert!(policy(&[("ENABLE_MULTI_NIC", "true")]).further_cards);
    assert!(policy(&[("ENABLE_POD_ENI", "true")]).trunk);
    let branches = |pairs: &[(&str, &str)]| read(pairs).unwrap().branches;
    assert_eq!(branches(&[("POD_SECURITY_GROUP_ENFORCING_MODE", "standard")]), None);
    assert_eq!(branches(&[("ENABLE_POD_ENI", "true")]), Some(Enforcing::Strict));
    let standard = [("ENABLE_POD_ENI", "true"), ("POD_SECURITY_GROUP_ENFORCING_MODE", "standard")];
    assert_eq!(branches(&standard), Some(Enforcing::Standard));
    assert_eq!(policy(&[("MAX_PODS", "110")]).max_pods, Some(110));
    let custom = [
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
        ("ENI_CONFIG_SUBNET", "subnet-1"),
        ("ENI_CONFIG_SECURITY_GROUPS", "sg-2, sg-1"),
    ];
    let security_groups = vec!["sg-1".parse().unwrap(), "sg-2".parse().unwrap()];
    let wanted = CustomNetwork { subnet: "subnet-1".parse().unwrap(), security_groups };
    assert_eq!(policy(&custom).placement, Placement::Custom(wanted));
}

#[test]
fn mistakes_in_modes_are_told() {
    let wrong = read(&[
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
        ("ENI_CONFIG_SECURITY_GROUPS", "default"),
        ("WARM_TARGET", "5"),
        ("MAX_PODS", "0"),
        ("WARM_PREFIX_TARGET", "-1"),
        ("ADDITIONAL_ENI_TAGS", "team=shop"),
    ])
    .unwrap_err();
    assert_eq!(wrong.0.len(), 6, "{wrong}");
}

#[test]
fn tags_are_taken_over_but_for_those_of_controllers() {
    let tags = r#"{"team":"shop","node.k8s.amazonaws.com/instance_id":"i-2"}"#;
    let settings = read(&[("ADDITIONAL_ENI_TAGS", tags)]).unwrap();
    assert_eq!(settings.eni_tags, BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
    assert!(read(&[("ADDITIONAL_ENI_TAGS", r#"{"aws:team":"shop"}"#)]).is_err());
}

#[test]
fn empty_text_means_absent() {
    assert_eq!(read(&[("MAX_ENI", ""), ("WARM_IP_TARGET", " ")]), read(&[]));
}

#[test]
fn every_setting_is_read_and_every_name_stands_once() {
    let asked = std::cell::RefCell::new(Vec::new());
    let read = Settings::read(|name| {
        asked.borrow_mut().push(name.to_owned());
        None
    });
    read.unwrap();
    let asked = asked.into_inner();
    let mut names = Vec::new();
    for setting in table::all() {
        assert!(asked.iter().any(|name| name == setting.name), "{} is in the table, but nobody reads it", setting.name);
        names.push(setting.name);
    }
    names.extend(ignored::IGNORED.iter().map(|ignored| ignored.name));
    names.extend(ignored::SILENT);
    names.sort_unstable();
    let once = names.len();
    names.dedup();
    assert_eq!(names.len(), once, "a name stands twice");
}

#[test]
fn every_default_is_accepted_and_agrees_with_what_the_parts_share() {
    for setting in table::all() {
        if let Unset::Default(text) = setting.unset {
            let with = |name: &str| (name == setting.name).then(|| text.to_owned());
            assert_eq!(Settings::read(with), Settings::read(|_| None), "{}", setting.name);
        }
    }
    let settings = read(&[]).unwrap();
    assert_eq!(settings.mtu, numbers::DEFAULT_MTU);
    assert_eq!(settings.add_wait_seconds, numbers::DEFAULT_ADD_WAIT_SECONDS);
    assert_eq!(settings.policy, Policy::default());
}

#[test]
fn every_form_refuses_what_it_does_not_accept() {
    for setting in table::all() {
        let bad: Vec<String> = match setting.form {
            Form::Switch => vec!["perhaps".to_owned(), "2".to_owned()],
            Form::Number { least, most, .. } => {
                let below = least.checked_sub(1).map_or_else(|| "-1".to_owned(), |below| below.to_string());
                vec![below, (most + 1).to_string(), "1.5".to_owned(), "1e9".to_owned(), "9".repeat(40)]
            }
            Form::Word(_) => vec!["x".to_owned()],
            Form::Path => vec!["./here".to_owned()],
            Form::Text(_) => continue,
        };
        for text in bad {
            let wrong = read(&[(setting.name, &text)]).unwrap_err();
            assert!(wrong.0.iter().any(|line| line.contains(setting.name)), "{}={text}: {wrong}", setting.name);
        }
    }
}

fn sources(environment: &[(&str, &str)]) -> sources::Sources {
    let texts = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    sources::Sources::gather(BTreeMap::new(), texts(environment)).unwrap()
}

#[test]
fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ipamd.toml");
    std::fs::write(
        &path,
        "WARM_IP_TARGET = 1\nMAX_ENI = 2\nMAX_PODS = 3\nENABLE_PREFIX_DELEGATION = true\nCLUSTER_NAME = \"\"\n\
         AWS_EXTERNAL_SERVICE_CIDRS = [\"10.1.0.0/16\", \"10.2.0.0/16\"]\n[ADDITIONAL_ENI_TAGS]\nteam = \"shop\"\n",
    )
    .unwrap();
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let environment =
        [pair("WARM_IP_TARGET", "11"), pair("MAX_ENI", "12"), pair("IPAMD_CONFIG", path.to_str().unwrap())];
    let command_line = [pair("WARM_IP_TARGET", "21")];
    let sources = sources::Sources::gather(command_line.into(), environment.into()).unwrap();
    let settings = Settings::of(&sources).unwrap();
    let policy = &settings.policy;
    assert_eq!((policy.warm_addresses, policy.max_enis, policy.max_pods), (21, Some(12), Some(3)));
    assert_eq!(policy.mode, ipam_core::Mode::Prefixes);
    assert_eq!(settings.external_services.len(), 2);
    assert_eq!(settings.eni_tags.get("team").map(String::as_str), Some("shop"));
    assert_eq!(settings.cluster, None);
    assert_eq!(sources.get("MAX_PODS"), Some(("3", Source::File)));
}

#[test]
fn a_file_that_is_nonsense_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ipamd.toml");
    let wrong = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        let wrong = sources::read_file(&path).unwrap_err().to_string();
        assert!(wrong.contains(path.to_str().unwrap()), "{wrong}");
        wrong
    };
    assert!(wrong(b"WARM_IP_TARGET = 1\nMAX_ENI = = 2\n").contains("line 2"));
    assert!(wrong(b"WARM_IP_TARGET: 1").contains("line 1"));
    assert!(wrong(b"\xff\xfe").contains("UTF-8"));
    let both = wrong(b"WARM_IP_TARGET = 1.5\nMAX_ENI = [1, 2]\n");
    assert!(both.contains("WARM_IP_TARGET") && both.contains("MAX_ENI"), "{both}");
    std::fs::remove_file(&path).unwrap();
    assert!(sources::read_file(&path).is_err());
}

#[test]
fn pods_that_take_larger_packets_than_their_enis_are_warned_of() {
    let warnings = |set: &[(&str, &str)]| sources(set).warnings();
    let (enis, pods) = (("AWS_VPC_ENI_MTU", "1500"), ("POD_MTU", "8900"));
    let told =
        "POD_MTU=\"8900\" is more than AWS_VPC_ENI_MTU=1500: larger packets that others send to pods may be lost";
    assert_eq!(warnings(&[enis, pods]), [told]);
    assert_eq!(warnings(&[enis, ("POD_MTU", "1500")]), [""; 0]);
    assert_eq!(warnings(&[pods]), [""; 0]);
}

#[test]
fn names_without_effect_are_told_with_the_nearest_that_has_one() {
    let warnings = sources(&[
        ("AWS_VPC_K8S_CNI_EXTERNAL_SNAT", "true"),
        ("WARM_IPS", "3"),
        ("MINIMUN_IP_TARGET", "3"),
        ("ENABLE_EVERYTHING", "true"),
        ("ENABLE_BANDWIDTH_PLUGIN", "true"),
        ("ENABLE_NFTABLES", ""),
        ("PATH", "/bin"),
        ("HOME", "/root"),
        ("WARM_IP_TARGET", "3"),
    ])
    .warnings();
    assert_eq!(
        warnings,
        [
            "AWS_VPC_K8S_CNI_EXTERNAL_SNAT is not known, so it has no effect; did you mean AWS_VPC_K8S_CNI_EXTERNALSNAT?",
            "ENABLE_BANDWIDTH_PLUGIN=\"true\" is ignored: chain the bandwidth plugin in a CNI configuration of your own",
            "ENABLE_EVERYTHING is not known, so it has no effect",
            "MINIMUN_IP_TARGET is not known, so it has no effect; did you mean MINIMUM_IP_TARGET?",
            "WARM_IPS is not known, so it has no effect",
        ]
    );
}

#[test]
fn pods_have_the_mtu_of_enis_unless_they_have_their_own() {
    let mtus = |set: &[(&str, &str)]| read(set).map(|settings| (settings.mtu, settings.pod_mtu, settings.node_ports));
    assert_eq!(mtus(&[]).unwrap(), (9001, 9001, true));
    assert_eq!(mtus(&[("AWS_VPC_ENI_MTU", "1500")]).unwrap(), (1500, 1500, true));
    let both = [("AWS_VPC_ENI_MTU", "1500"), ("POD_MTU", "1400"), ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false")];
    assert_eq!(mtus(&both).unwrap(), (1500, 1400, false));
    assert!(mtus(&[("POD_MTU", "500")]).is_err());
}

/// The kernel takes IPv6 away from a link with less: every ADD would fail, and the node lose its own.
#[test]
fn links_that_carry_ipv6_have_the_mtu_that_it_needs() {
    for ipv6 in ["ENABLE_IPv6", "ENABLE_V6_EGRESS"] {
        for name in ["AWS_VPC_ENI_MTU", "POD_MTU"] {
            let mistakes = read(&[(ipv6, "true"), (name, "1279")]).unwrap_err().to_string();
            assert_eq!(mistakes.matches("  - ").count(), 1, "{mistakes}");
            assert!(
                mistakes.contains(&format!("{name}=\"1279\": with {ipv6} links need 1280 bytes or more")),
                "{mistakes}"
            );
            read(&[(ipv6, "true"), (name, "1280")]).unwrap();
            read(&[(name, "1279")]).unwrap();
        }
    }
}

#[test]
fn ipv6_cannot_be_switched_off_in_pods_that_get_an_ipv6_address() {
    let off = |set: &[(&str, &str)]| read(set).map(|settings| settings.pods_without_ipv6);
    assert!(!off(&[]).unwrap());
    assert!(off(&[("DISABLE_POD_V6", "true")]).unwrap());
    for other in ["ENABLE_IPv6", "ENABLE_V6_EGRESS"] {
        assert!(off(&[("DISABLE_POD_V6", "true"), (other, "true")]).is_err(), "{other}");
        assert!(!off(&[("DISABLE_POD_V6", "false"), (other, "true")]).unwrap(), "{other}");
    }
}

/// What the chart of amazon-vpc-cni-k8s 1.23 sets when nothing is changed in its values.
const AWS_CHART: &[(&str, &str)] = &[
    ("ADDITIONAL_ENI_TAGS", "{}"),
    ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "true"),
    ("AWS_VPC_ENI_MTU", "9001"),
    ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "false"),
    ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false"),
    ("AWS_VPC_K8S_CNI_LOGLEVEL", "DEBUG"),
    ("AWS_VPC_K8S_CNI_LOG_FILE", "/host/var/log/aws-routed-eni/ipamd.log"),
    ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "prng"),
    ("AWS_VPC_K8S_CNI_VETHPREFIX", "eni"),
    ("AWS_VPC_K8S_PLUGIN_LOG_FILE", "/var/log/aws-routed-eni/plugin.log"),
    ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "DEBUG"),
    ("DISABLE_INTROSPECTION", "false"),
    ("DISABLE_METRICS", "false"),
    ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "false"),
    ("ENABLE_IPv4", "true"),
    ("ENABLE_IPv6", "false"),
    ("ENABLE_POD_ENI", "false"),
    ("ENABLE_PREFIX_DELEGATION", "false"),
    ("ENABLE_SUBNET_DISCOVERY", "true"),
    ("NETWORK_POLICY_ENFORCING_MODE", "standard"),
    ("VPC_CNI_VERSION", "v1.23.1"),
    ("WARM_ENI_TARGET", "1"),
    ("WARM_PREFIX_TARGET", "1"),
];

#[test]
fn the_values_of_the_aws_chart_mean_the_same_or_are_told_one_by_one() {
    let sources = sources(AWS_CHART);
    let mut settings = Settings::of(&sources).unwrap();
    assert_eq!(std::mem::replace(&mut settings.log.level, "info"), "debug");
    assert!(settings.log.file.take().is_some());
    assert_eq!(settings.policy_agent.take().map(|agent| agent.mode), Some(eni_proto::policy::Mode::Standard));
    assert_eq!(settings, read(&[]).unwrap());
    let warned: Vec<String> =
        sources.warnings().iter().filter_map(|warning| Some(warning.split_once('=')?.0.to_owned())).collect();
    let expected = AWS_CHART
        .iter()
        .filter(|(name, text)| ignored::IGNORED.iter().any(|ignored| ignored.name == *name && ignored.is_missed(text)));
    assert_eq!(warned, expected.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
}

#[test]
fn the_page_in_the_repository_is_the_one_that_is_written_now() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/SETTINGS.md");
    let there = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        there == reference::as_markdown(),
        "ipamd/SETTINGS.md is not up to date; write it with `cargo run -p ipamd -- config reference > ipamd/SETTINGS.md`"
    );
}

#[test]
fn the_reference_for_programs_has_a_schema_that_accepts_the_default() {
    let reference = reference::as_json();
    for setting in reference.get("settings").and_then(serde_json::Value::as_array).unwrap() {
        let text = |key: &str| setting.get(key).and_then(serde_json::Value::as_str);
        assert!(text("default").is_some() != text("unset").is_some(), "{setting}");
        let schema = setting.get("schema").unwrap();
        if let (Some(least), Some(default)) = (schema.get("minimum"), text("default")) {
            assert!(default.parse::<u64>().unwrap() >= least.as_u64().unwrap(), "{setting}");
        }
    }
}
