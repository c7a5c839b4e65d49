//! `ipamd config`: what the settings are, and which there are.

use std::{path::Path, process::ExitCode};

use serde_json::json;

use crate::{
    arguments::{self, Places},
    errors::complain,
    settings::{
        Mistakes, Settings, reference,
        sources::{Source, Sources},
        table::{self as known, Unset},
        values::{self, Left, Values},
    },
    table::{self, lay_out},
};

/// Shows the settings that a values file gives the daemon, and tells what of it has no effect or another one.
pub(crate) fn check_values(places: &Places, file: &Path, as_json: bool) -> ExitCode {
    let values = match values::read(file) {
        Ok(values) => values,
        Err(mistakes) => return arguments::wrong(&mistakes),
    };
    match places.sources_beside(values.environment.clone()) {
        Ok(sources) => check(&sources, Some(&values), as_json),
        Err(code) => code,
    }
}

/// Shows each setting with who set it, and tells what is wrong or has no effect.
pub(crate) fn check(sources: &Sources, values: Option<&Values>, as_json: bool) -> ExitCode {
    let read = Settings::of(sources);
    let mut warnings = sources.warnings();
    if as_json {
        let mut object = object(sources, values, &warnings, read.as_ref().err());
        if let Some(values) = values {
            let left: Vec<_> = values.left.iter().map(|left| json!({ "value": left.path, "why": left.why })).collect();
            object["left"] = left.into();
            object["values"] = values.carried.clone().into();
        }
        table::show(&format!("{object}\n"), true);
        return if read.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(arguments::WRONG_SETTINGS) };
    }
    table::show(&text(sources, values), false);
    warnings.extend(values.iter().flat_map(|values| grouped(&values.left)));
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    match read {
        Ok(_) => ExitCode::SUCCESS,
        Err(mistakes) => arguments::wrong(&mistakes),
    }
}

/// One line for all values that are left for the same reason.
fn grouped(left: &[Left]) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for one in left {
        match reasons.iter_mut().find(|(why, _)| *why == one.why) {
            Some((_, paths)) => paths.push(&one.path),
            None => reasons.push((&one.why, vec![&one.path])),
        }
    }
    reasons.into_iter().map(|(why, paths)| format!("{}: {why}", paths.join(", "))).collect()
}

/// The settings, who set each, what is wrong and what has no effect, as JSON.
pub(crate) fn as_text(sources: &Sources) -> String {
    format!("{:#}\n", object(sources, None, &sources.warnings(), Settings::of(sources).err().as_ref()))
}

/// Shows all settings that there are.
#[allow(clippy::print_stdout, reason = "a command for people")]
pub(crate) fn reference(as_json: bool) -> ExitCode {
    match as_json {
        true => println!("{:#}", reference::as_json()),
        false => print!("{}", reference::as_markdown()),
    }
    ExitCode::SUCCESS
}

/// Name, text and source of every setting; text is absent where nothing is set and nothing counts instead.
fn effective(sources: &Sources) -> impl Iterator<Item = (&'static str, Option<&str>, Source)> {
    known::all().map(|setting| match (sources.get(setting.name), setting.unset) {
        (Some((text, source)), _) => (setting.name, Some(text), source),
        (None, Unset::Default(text)) => (setting.name, Some(text), Source::Default),
        (None, Unset::Means(_)) => (setting.name, None, Source::Default),
    })
}

/// Who set a value, for people. A values file stands for the environment that it makes.
const fn set_by(source: Source, values: Option<&Values>) -> &'static str {
    match (source, values) {
        (Source::Environment, Some(_)) => "values file",
        (source, _) => source.as_str(),
    }
}

fn text(sources: &Sources, values: Option<&Values>) -> String {
    let rows = effective(sources).map(|(name, text, source)| {
        let source = if source == Source::Default { String::new() } else { set_by(source, values).to_owned() };
        [name.to_owned(), text.unwrap_or("-").to_owned(), source]
    });
    lay_out(["SETTING", "VALUE", "SET BY"], rows, table::columns())
}

fn object(
    sources: &Sources,
    values: Option<&Values>,
    warnings: &[String],
    mistakes: Option<&Mistakes>,
) -> serde_json::Value {
    let settings: serde_json::Map<_, _> = effective(sources)
        .map(|(name, text, source)| (name.to_owned(), json!({ "value": text, "set_by": set_by(source, values) })))
        .collect();
    let mistakes: Vec<&str> = mistakes.iter().flat_map(|mistakes| &mistakes.0).map(|mistake| mistake.trim()).collect();
    json!({ "settings": settings, "warnings": warnings, "mistakes": mistakes })
}
