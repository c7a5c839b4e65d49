//! The settings about Kubernetes.

use super::Reader;
use crate::kube::{KubeSettings, decide::EniConfigNames, is_name, place};

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    pub(super) fn kubernetes(&mut self) -> Option<KubeSettings> {
        let endpoint = self.text("CLUSTER_ENDPOINT").and_then(|text| {
            let endpoint = place::endpoint(&text);
            if endpoint.is_none() {
                self.wrong("CLUSTER_ENDPOINT", &text, "give a URL without a path, like https://10.0.0.1:443");
            }
            endpoint
        });
        let account = self.path("IPAMD_SERVICE_ACCOUNT_DIR");
        let annotate = self.switch("ANNOTATE_POD_IP");
        let custom = self.switch("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG") && self.text("ENI_CONFIG_SUBNET").is_none();
        let names = EniConfigNames {
            annotation: self.text("ENI_CONFIG_ANNOTATION_DEF").unwrap_or_default(),
            label: self.text("ENI_CONFIG_LABEL_DEF").unwrap_or_default(),
        };
        let node = self.text("MY_NODE_NAME")?;
        if !is_name(&node) {
            self.wrong("MY_NODE_NAME", &node, "that is no node's name; take it from spec.nodeName");
        }
        let branches = self.switch("ENABLE_POD_ENI");
        Some(KubeSettings { node, endpoint, account, annotate, eni_config: custom.then_some(names), branches })
    }
}
