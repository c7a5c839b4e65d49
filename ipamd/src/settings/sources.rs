//! Where settings come from: the command line goes before the environment, and that before the file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{Mistakes, ignored, table};

/// Names that begin so are meant for a CNI of this family.
const OURS: &[&str] = &["AWS_VPC_K8S_", "AWS_VPC_CNI_", "WARM_", "ENABLE_", "DISABLE_", "IPAMD_", "ENI_CONFIG_"];
/// How many letters may differ for two names to be taken for one with a slip.
const SLIPS: usize = 2;

/// Who set a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    CommandLine,
    Environment,
    File,
    /// Nobody: the default counts.
    Default,
}

impl Source {
    /// Its name, for people.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        }
    }
}

/// Everything that is set, as text by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) command_line: BTreeMap<String, String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) file: BTreeMap<String, String>,
}

impl Sources {
    /// Takes what the command line and the environment say, and reads the file that they name (`--config`, `IPAMD_CONFIG`), if any.
    ///
    /// # Errors
    /// What is wrong with the file itself.
    pub(crate) fn gather(
        command_line: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, Mistakes> {
        let mut sources = Self { command_line, environment, file: BTreeMap::new() };
        if let Some(path) = sources.config_file() {
            sources.file = read_file(&path)?;
        }
        Ok(sources)
    }

    /// The file that settings are read from. Absent: none.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        self.get("IPAMD_CONFIG").map(|(path, _)| PathBuf::from(path.trim()))
    }

    /// The text that counts for a name and who set it; empty text counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, Source)> {
        let of = |texts: &'_ BTreeMap<String, String>, source| {
            texts.get(name).filter(|text| !text.trim().is_empty()).map(|_| source)
        };
        let source = of(&self.command_line, Source::CommandLine)
            .or_else(|| of(&self.environment, Source::Environment))
            .or_else(|| of(&self.file, Source::File))?;
        let texts = match source {
            Source::CommandLine => &self.command_line,
            Source::Environment => &self.environment,
            Source::File | Source::Default => &self.file,
        };
        texts.get(name).map(|text| (text.as_str(), source))
    }

    /// What was set, by name, without paths, which mean something else to another process.
    pub(crate) fn given(&self) -> BTreeMap<String, String> {
        let settings = table::all().filter(|setting| setting.form != table::Form::Path);
        settings.filter_map(|setting| Some((setting.name.to_owned(), self.get(setting.name)?.0.to_owned()))).collect()
    }

    /// Says which names will have no effect, or a bad one, and why; sorted by name.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings: BTreeMap<&str, String> = BTreeMap::new();
        let given = [(&self.environment, false), (&self.file, true), (&self.command_line, true)];
        for (texts, surely_meant) in given {
            for (name, text) in texts {
                if let Some(warning) = warning(name, text, surely_meant) {
                    warnings.insert(name, warning);
                }
            }
        }
        warnings.extend(self.pods_beyond_enis());
        warnings.into_values().collect()
    }

    /// Pods announce by TCP what they take, and others send it.
    fn pods_beyond_enis(&self) -> Option<(&str, String)> {
        let number = |name| self.get(name)?.0.trim().parse::<u16>().ok();
        let (enis, pods) = (number("AWS_VPC_ENI_MTU")?, number("POD_MTU")?);
        let why = format!("is more than AWS_VPC_ENI_MTU={enis}: larger packets that others send to pods may be lost");
        (pods > enis).then(|| ("POD_MTU", format!("POD_MTU=\"{pods}\" {why}")))
    }
}

/// Says why a name has no effect. `surely_meant`: it was set for ipamd and nothing else. Absent: it has, or is none of ours.
fn warning(name: &str, text: &str, surely_meant: bool) -> Option<String> {
    if table::find(name).is_some() || ignored::SILENT.contains(&name) {
        return None;
    }
    if let Some(ignored) = ignored::IGNORED.iter().find(|ignored| ignored.name == name) {
        return ignored.is_missed(text).then(|| format!("{name}=\"{text}\" is ignored: {}", ignored.why));
    }
    let (nearest, slips) = nearest(name)?;
    let is_slip = slips <= SLIPS && name.len() > 3 * SLIPS;
    let is_of_family = OURS.iter().any(|prefix| name.starts_with(prefix));
    let near = if slips <= name.len() / 3 { format!("; did you mean {nearest}?") } else { String::new() };
    (surely_meant || is_of_family || is_slip).then(|| format!("{name} is not known, so it has no effect{near}"))
}

/// The known name that is most like `name`, and by how many letters it differs.
fn nearest(name: &str) -> Option<(&'static str, usize)> {
    let known = table::all().map(|setting| setting.name).chain(ignored::IGNORED.iter().map(|ignored| ignored.name));
    known.map(|known| (known, strsim::damerau_levenshtein(known, name))).min_by_key(|(_, slips)| *slips)
}

/// Reads a TOML file whose keys are the settings' names.
///
/// # Errors
/// That it cannot be read, is no TOML, or has values of a kind that no setting has.
pub(crate) fn read_file(path: &Path) -> Result<BTreeMap<String, String>, Mistakes> {
    let one = |mistake: String| Mistakes(vec![format!("  - {}: {mistake}", path.display())]);
    let text = std::fs::read_to_string(path).map_err(|error| one(error.to_string()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| one(error.to_string().trim().to_owned()))?;
    let mut texts = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, value) in table {
        match as_text(&value) {
            Some(text) => drop(texts.insert(name, text)),
            None => mistakes.push(format!(
                "  - {}: {name}: give a text, a number, true or false, a list of texts, or a table of texts",
                path.display()
            )),
        }
    }
    if mistakes.is_empty() { Ok(texts) } else { Err(Mistakes(mistakes)) }
}

/// A TOML value as it would stand in the environment.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<&str>> = list.iter().map(toml::Value::as_str).collect();
            Some(texts?.join(","))
        }
        toml::Value::Table(table) => {
            let texts: Option<BTreeMap<&String, &str>> =
                table.iter().map(|(key, value)| Some((key, value.as_str()?))).collect();
            serde_json::to_string(&texts?).ok()
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) => None,
    }
}
