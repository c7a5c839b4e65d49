//! The table of settings as people and programs read it.

use std::fmt::Write as _;

use serde_json::json;

use super::{
    ignored::IGNORED,
    table::{self, Form, Setting, TOPICS, Unset},
    values,
};

impl Form {
    /// What it accepts, for people.
    fn words(self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Number { least, most, unit: "" } => format!("{least} to {most}"),
            Self::Number { least, most, unit } => format!("{least} to {most} {unit}"),
            Self::Word(words) => one_of(words),
            Self::Path => "an absolute path".to_owned(),
            Self::Text(words) => words.to_owned(),
        }
    }

    /// The JSON schema of a value in a values file.
    fn schema(self) -> serde_json::Value {
        match self {
            Self::Switch => json!({ "type": ["boolean", "string"], "enum": [true, false, "true", "false"] }),
            Self::Number { least, most, .. } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Self::Word(words) => json!({ "type": "string", "enum": words }),
            Self::Path => json!({ "type": "string", "pattern": "^/" }),
            Self::Text(_) => json!({ "type": "string" }),
        }
    }
}

impl Setting {
    /// What counts without it, for people.
    fn without(&self) -> String {
        match self.unset {
            Unset::Default(text) => text.to_owned(),
            Unset::Means(words) => format!("not set: {words}"),
        }
    }

    const fn default(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Default(text) => Some(text),
            Unset::Means(_) => None,
        }
    }
}

/// Joins words as a sentence does: `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The settings for `--help`.
pub(crate) fn as_help() -> String {
    let mut text =
        "Settings, from --set, the environment or the file (ipamd config reference tells more):\n".to_owned();
    for setting in table::all() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<37} {} [{}]", setting.name, setting.meaning, setting.without());
    }
    text
}

const INTRODUCTION: &str = "# Settings

Written by `ipamd config reference` from `ipamd/src/settings/table.rs`; a test holds this page to it.

A setting is read from the command line (`ipamd serve --set NAME=VALUE`), else from the environment, else from a TOML file (`--config FILE`
or `IPAMD_CONFIG`), whose keys are the same names; a ConfigMap can be mounted as that file. Empty text counts as not set. All mistakes are
reported together (IPAM-301), and `ipamd config check` does so without starting anything.
Names marked AWS are those of amazon-vpc-cni-k8s and mean the same.
";

/// The settings as a Markdown page.
pub(crate) fn as_markdown() -> String {
    let live: Vec<_> = table::LIVE.iter().map(|name| format!("`{name}`")).collect();
    let live: Vec<_> = live.iter().map(String::as_str).collect();
    let mut text = INTRODUCTION.to_owned();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "\nThe file is read again every 20 s, and at once after SIGHUP. What has changed of these holds from then on:\n{}. A change of any other is told in the log and takes effect at the next start. A file that has become wrong changes nothing and is an error in the log.",
        one_of(&live).replace(" or ", " and ")
    );
    for (topic, settings) in TOPICS {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## {topic}\n\n| name | AWS | accepts | default | meaning |\n|---|---|---|---|---|");
        for setting in *settings {
            let aws = if setting.of_aws_cni { "yes" } else { "" };
            let (form, without) = (setting.form.words(), setting.without());
            let _ = writeln!(text, "| `{}` | {aws} | {form} | {without} | {} |", setting.name, setting.meaning);
        }
    }
    text.push_str("\n## Settings of the AWS CNI that are ignored\n\nipamd warns when one asks for something that will not happen.\n");
    text.push_str("\n| name | no warning for | why |\n|---|---|---|\n");
    for ignored in IGNORED {
        let _ = writeln!(text, "| `{}` | {} | {} |", ignored.name, ignored.same.join(", "), ignored.why);
    }
    text.push_str("\n## Values of the chart of amazon-vpc-cni-k8s\n\nWhat becomes of each in our chart; `ipamd config check --values FILE` says it of a values file.\n\n");
    text.push_str(&values::as_markdown());
    text
}

/// The settings for programs: `settings` with the JSON schema of each, and `ignored`.
pub(crate) fn as_json() -> serde_json::Value {
    let settings: Vec<_> = TOPICS
        .iter()
        .flat_map(|(topic, settings)| settings.iter().map(move |setting| object(topic, setting)))
        .collect();
    let ignored: Vec<_> =
        IGNORED.iter().map(|row| json!({ "name": row.name, "same": row.same, "why": row.why })).collect();
    json!({ "settings": settings, "ignored": ignored })
}

fn object(topic: &str, setting: &Setting) -> serde_json::Value {
    let unit = match setting.form {
        Form::Number { unit, .. } if !unit.is_empty() => Some(unit),
        Form::Number { .. } | Form::Switch | Form::Word(_) | Form::Path | Form::Text(_) => None,
    };
    let means = match setting.unset {
        Unset::Means(words) => Some(words),
        Unset::Default(_) => None,
    };
    json!({
        "name": setting.name,
        "topic": topic,
        "accepts": setting.form.words(),
        "unit": unit,
        "default": setting.default(),
        "unset": means,
        "of_aws_cni": setting.of_aws_cni,
        "meaning": setting.meaning,
        "schema": setting.form.schema(),
    })
}
