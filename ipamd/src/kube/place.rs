//! Where the API server is, and how it is told who asks.

use std::path::{Path, PathBuf};

use super::KubeSettings;

/// Where the API server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// As `https://10.100.0.1:443`.
    pub(crate) server: String,
    /// File with the certificates of the cluster's authority.
    pub(crate) authority: PathBuf,
    /// File with the token of the service account.
    pub(crate) token: PathBuf,
}

impl Place {
    /// Finds the API server as every pod does. `variable` reads the environment that kubelet sets.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn find(
        settings: &KubeSettings,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, String> {
        let server = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let host = variable("KUBERNETES_SERVICE_HOST")
                    .ok_or("neither CLUSTER_ENDPOINT nor KUBERNETES_SERVICE_HOST is set")?;
                let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                format!("https://{host}:{port}")
            }
        };
        let file = |name: &str| Path::new(&settings.account).join(name);
        let place = Self { server, authority: file("ca.crt"), token: file("token") };
        if place.server.starts_with("https:") && !place.authority.exists() {
            return Err(format!("there is no {}", place.authority.display()));
        }
        Ok(place)
    }
}

/// The form of `CLUSTER_ENDPOINT`: a URL without a path.
pub(crate) fn endpoint(text: &str) -> Option<String> {
    let text = text.trim_end_matches('/');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let fits = !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: Option<&str>) -> KubeSettings {
        KubeSettings {
            node: "node-1".to_owned(),
            endpoint: endpoint.map(str::to_owned),
            account: "/nowhere".into(),
            annotate: false,
            eni_config: None,
            branches: false,
        }
    }

    #[test]
    fn without_a_server_or_a_certificate_there_is_a_reason() {
        let nothing = |_| None;
        assert!(Place::find(&settings(None), nothing).unwrap_err().contains("KUBERNETES_SERVICE_HOST"));
        let host = |name| (name == "KUBERNETES_SERVICE_HOST").then(|| "fd00::1".to_owned());
        assert_eq!(Place::find(&settings(None), host).unwrap_err(), "there is no /nowhere/ca.crt");
        assert_eq!(Place::find(&settings(Some("http://127.0.0.1:1")), nothing).unwrap().server, "http://127.0.0.1:1");
    }

    #[test]
    fn an_endpoint_is_a_url_without_a_path() {
        assert_eq!(endpoint("https://abc.eks.amazonaws.com/").as_deref(), Some("https://abc.eks.amazonaws.com"));
        for wrong in ["", "abc", "ftp://abc", "https://", "https://a/b", "https://a b", "https://a\r\nX: y"] {
            assert_eq!(endpoint(wrong), None, "{wrong:?}");
        }
    }
}
